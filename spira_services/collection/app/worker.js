/* Keeps the page itself on the phone, so that it opens without a network.

   Every version has a cache of its own that is filled at once or not at all: a page never runs with
   modules of two versions.  Calls of the API pass by untouched. */

importScripts("version.js");

const CACHE = `spira-collection-${self.SPIRA_VERSION}`;
const FILES = [
  "./",
  "api.js",
  "answers.js",
  "apple-touch-icon.png",
  "ask.js",
  "capture.js",
  "checks.js",
  "consent.js",
  "dom.js",
  "enrol.js",
  "form.js",
  "form_rules.js",
  "icon-192.png",
  "icon-512.png",
  "icon-maskable-512.png",
  "icon.svg",
  "install.js",
  "main.js",
  "manifest.webmanifest",
  "recorder.js",
  "review.js",
  "session.js",
  "sessions.js",
  "steps.js",
  "store.js",
  "style.css",
  "task.js",
  "time.js",
  "upload.js",
  "version.js",
  "wav.js",
  "words.js",
];

self.addEventListener("install", (event) => {
  const requests = FILES.map((file) => new Request(file, { cache: "reload" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  const clean = async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith("spira-collection-") && name !== CACHE) await caches.delete(name);
    }
    await self.clients.claim();
  };
  event.waitUntil(clean());
});

self.addEventListener("message", (event) => {
  if (event.data === "take over") self.skipWaiting();
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const page = new URL(self.registration.scope).pathname;
  if (event.request.method !== "GET" || url.origin !== self.location.origin) return;
  if (!url.pathname.startsWith(page) || url.pathname.startsWith(`${page}v1/`)) return;
  const key = event.request.mode === "navigate" ? "./" : event.request;
  const answer = async () => {
    const cache = await caches.open(CACHE);
    return (await cache.match(key, { ignoreSearch: true })) ?? fetch(event.request);
  };
  event.respondWith(answer());
});
