/* What is kept on the phone until the server has it, in IndexedDB.

   facts     the device's key, the form as it was fetched last, the language
   sessions  one record a session, and one for each time that a model is asked (`kind: "ask"`)
   audio     the bytes of takes, apart, so that a list of sessions loads none of them

   A session is `draft`, `waiting` (finished, to be sent), `accepted`, `refused`, `consenting` (was
   accepted, and its consent is to be sent), `withdrawing` (to be sent too) or `withdrawn`.

   An ask is `draft`, `waiting`, `asked` (the server has it, and its audio is gone from here) or
   `deleting` (the server is to be told).  What a model answered is never kept on the phone: it is
   fetched when somebody looks at it. */

const NAME = "spira-collection";
const ASKS_KEPT_DAYS = 7;
const SAFE = { durability: "strict" }; // on the disk before it is called done
const changes = new BroadcastChannel("spira-collection");
const listeners = new Set();

const connection = new Promise((resolve, reject) => {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("facts");
    request.result.createObjectStore("sessions", { keyPath: "id" });
    request.result.createObjectStore("audio", { keyPath: "id" }).createIndex("session", "session");
  };
  request.onsuccess = () => {
    request.result.onversionchange = () => request.result.close();
    resolve(request.result);
  };
  request.onerror = () => reject(request.error);
  request.onblocked = () => reject(new Error("another tab holds an older version"));
});

const answer = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Run `work(…stores)` in one transaction; return its value once all of it is on the disk. */
async function transaction(names, mode, work) {
  const running = (await connection).transaction(names, mode, SAFE);
  const done = new Promise((resolve, reject) => {
    running.oncomplete = resolve;
    running.onerror = () => reject(running.error);
    running.onabort = () => reject(running.error ?? new DOMException("aborted", "AbortError"));
  });
  done.catch(() => {}); // it is awaited below, unless the work itself has failed
  const value = await work(...names.map((name) => running.objectStore(name)));
  await done;
  return value;
}

/** Call `listener` after each change, of this tab or another. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Tell all tabs of a change. */
export function announce(change = {}) {
  changes.postMessage(change);
  listeners.forEach((listener) => listener(change));
}

changes.onmessage = ({ data }) => listeners.forEach((listener) => listener(data));

export const fact = (name) => transaction(["facts"], "readonly", (facts) => answer(facts.get(name)));

export const setFact = (name, value) =>
  transaction(["facts"], "readwrite", (facts) => answer(facts.put(value, name)));

export const session = (id) =>
  transaction(["sessions"], "readonly", (sessions) => answer(sessions.get(id)));

/** All sessions, the newest first. */
export async function sessions() {
  const all = await transaction(["sessions"], "readonly", (store) => answer(store.getAll()));
  return all.sort((a, b) => b.created_at.localeCompare(a.created_at));
}

export async function addSession(record) {
  await transaction(["sessions"], "readwrite", (store) => answer(store.add(record)));
  announce();
}

/** Change a session by `edit(record)`; return it as it is then, or undefined where there is none. */
export async function change(id, edit) {
  const changed = await transaction(["sessions"], "readwrite", async (store) => {
    const record = await answer(store.get(id));
    if (record === undefined) return undefined;
    edit(record);
    await answer(store.put(record));
    return record;
  });
  announce();
  return changed;
}

/** Keep the take of a task, its bytes and what is said about it together, in place of an earlier one. */
export async function addTake(id, take, bytes) {
  const changed = await transaction(["sessions", "audio"], "readwrite", async (store, audio) => {
    const record = await answer(store.get(id));
    const earlier = record.takes[take.task];
    if (earlier) audio.delete(earlier.id);
    record.takes[take.task] = take;
    record.problems = record.problems.filter((problem) => problem.task !== take.task);
    delete record.skipped[take.task];
    audio.put({ id: take.id, session: id, bytes });
    await answer(store.put(record));
    return record;
  });
  announce();
  return changed;
}

/** The bytes of a take, null where they are not on this phone any more. */
export async function bytesOf(take) {
  const found = await transaction(["audio"], "readonly", (audio) => answer(audio.get(take.id)));
  return found?.bytes ?? null;
}

async function deleteAudio(audio, id) {
  for (const key of await answer(audio.index("session").getAllKeys(id))) audio.delete(key);
}

/** Change a session and delete its audio, in one transaction. */
export async function changeWithoutAudio(id, edit) {
  await transaction(["sessions", "audio"], "readwrite", async (store, audio) => {
    const record = await answer(store.get(id));
    if (record === undefined || edit(record) === false) return;
    await deleteAudio(audio, id);
    await answer(store.put(record));
  });
  announce();
}

/** Give a session another id, under which no device has sent it. */
export async function renew(id) {
  await transaction(["sessions", "audio"], "readwrite", async (store, audio) => {
    const record = await answer(store.get(id));
    const renewed = { ...record, id: crypto.randomUUID(), revision: 1, receipt: null, sent_as: null, error: null };
    for (const take of await answer(audio.index("session").getAll(id))) audio.put({ ...take, session: renewed.id });
    store.put(renewed);
    await answer(store.delete(id));
  });
  announce();
}

/** Delete a session and all that belongs to it. */
export async function deleteSession(id) {
  await transaction(["sessions", "audio"], "readwrite", async (store, audio) => {
    await deleteAudio(audio, id);
    await answer(store.delete(id));
  });
  announce();
}

/** Forget what was asked so long ago that nobody needs the answer on this phone. */
export async function forgetOldAsks() {
  const since = Date.now() - ASKS_KEPT_DAYS * 86_400_000;
  for (const { id, kind, state, created_at, asked_at = created_at } of await sessions()) {
    if (kind === "ask" && state === "asked" && Date.parse(asked_at) < since) await deleteSession(id);
  }
}

/** Whether something of a session still has to reach the server. */
export const isUnsent = (record) =>
  ["draft", "waiting", "refused", "consenting", "withdrawing", "deleting"].includes(record.state);
