/* Start of the page: which screen the address asks for, the bar above all of them, the worker. */

import { answerScreen, answersScreen } from "./answers.js";
import * as api from "./api.js";
import { el, replaceIn } from "./dom.js";
import { enrolScreen, rememberCode } from "./enrol.js";
import { sessionScreen } from "./session.js";
import { sessionsScreen } from "./sessions.js";
import { fact, forgetOldAsks, isUnsent, onChange, sessions, setFact } from "./store.js";
import { startSending, tell } from "./upload.js";
import { languageNow, setLanguage, t } from "./words.js";

const ROUTES = [
  [/^#\/enrol$/, enrolScreen],
  [/^#\/session\/([0-9a-f-]{36})(?:\/(\w+))?$/, sessionScreen],
  [/^#\/answers$/, answersScreen],
  [/^#\/answer\/([0-9a-f-]{36})$/, answerScreen],
  [/^/, sessionsScreen],
];
const main = document.getElementById("main");

let leave = null; // what the screen that is shown has to do before another is
let turn = 0; // of the call of `show` that counts: the last

/** Show the screen of the address. */
async function show() {
  turn += 1;
  const mine = turn;
  await leave?.();
  leave = null;
  const device = await fact("device");
  const [pattern, screen] = device ? ROUTES.find(([route]) => route.test(location.hash)) : [/^/, enrolScreen];
  const content = await screen({ device, path: pattern.exec(location.hash).slice(1), refresh: show });
  if (mine !== turn) {
    await content.leave?.();
    return;
  }
  leave = content.leave;
  replaceIn(main, ...content.elements);
  document.title = content.title ? `${content.title} · SPIRA` : t("title");
  scrollTo(0, 0);
  const first = content.focus && main.querySelector(content.focus);
  if (first) first.focus();
  else if (!main.contains(document.activeElement)) focusOnHeading();
}

function focusOnHeading() {
  const heading = main.querySelector("h1");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
}

async function showBar() {
  const device = await fact("device");
  const n = (await sessions()).filter(isUnsent).length;
  const words = t(n > 1 ? "unsent_n" : `unsent_${n}`, { n });
  const other = t("language_code");
  replaceIn(
    document.getElementById("bar"),
    el("a", { href: "#/", class: "brand", id: "home" }, "SPIRA"),
    device && el("a", { href: "#/", class: n ? "unsent some" : "unsent", id: "unsent" }, words),
    el("button", { type: "button", class: "quiet", id: "language", lang: other, onclick: () => changeLanguage(other) }, t("language")),
  );
}

async function changeLanguage(code) {
  setLanguage(code);
  await setFact("language", code);
  await showBar();
  await show();
}

/** Fetch the form where there is a network; it is used without one. */
async function fetchForm() {
  const device = await fact("device");
  if (!device) return;
  try {
    const form = await api.form(device.key);
    const earlier = await fact("form");
    await setFact("form", form);
    if (!earlier) await show();
  } catch (failure) {
    if (failure.status === 401) tell({ problem: "enrol_again" }); // else the earlier one is good enough
  }
}

async function installWorker() {
  if (!("serviceWorker" in navigator)) return;
  const controlled = navigator.serviceWorker.controller !== null;
  const registration = await navigator.serviceWorker.register("worker.js", { updateViaCache: "none" });
  const bar = document.getElementById("bar");
  navigator.serviceWorker.addEventListener("controllerchange", () => {
    if (controlled && !bar.inert) location.reload(); // another tab may have taken the new version
  });
  const offer = (worker) => worker?.state === "installed" && controlled && offerUpdate(worker);
  offer(registration.waiting);
  registration.addEventListener("updatefound", () => {
    const worker = registration.installing;
    worker.addEventListener("statechange", () => offer(worker));
  });
}

/** A new version is taken when the collector says so, never in the middle of a recording. */
function offerUpdate(worker) {
  const take = el("button", { type: "button", onclick: () => worker.postMessage("take over") }, t("update"));
  document.getElementById("bar").after(el("p", { class: "update", role: "status" }, t("new_version"), " ", take));
}

async function begin() {
  setLanguage((await fact("language")) ?? languageNow());
  rememberCode();
  onChange(({ line }) => line || void showBar());
  addEventListener("hashchange", () => {
    rememberCode(); // a link with a code may be opened while the page is
    void show();
  });
  await forgetOldAsks();
  await showBar();
  await show();
  startSending();
  addEventListener("online", () => void fetchForm());
  void fetchForm();
  void installWorker().catch(() => {}); // without one the page works while there is a network
}

setLanguage(languageNow());
begin().catch(() => replaceIn(main, el("h1", {}, "SPIRA"), el("p", { class: "care", role: "alert" }, t("no_store"))));
