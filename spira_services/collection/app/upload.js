/* Sends what is finished: whole, once, and again after every break.

   One tab sends at a time.  A file goes on from the byte that the server has; a session counts as
   stored only when the receipt lists the very digests of what is on the phone. */

import { Failure, ask, deleteInference, giveConsent, offsetOf, receipts, sendPart, sendSession, withdraw } from "./api.js";
import { announce, bytesOf, change, changeWithoutAudio, deleteSession, fact, renew, session, sessions } from "./store.js";
import { isoWithOffset } from "./time.js";

const PART_BYTES = 256 * 1024;
const FIRST_WAIT_SECONDS = 5;
const LONGEST_WAIT_SECONDS = 300;
const MAX_RESTARTS = 3; // of one file in one try, where the server says that other bytes came

export const TO_SEND = ["waiting", "consenting", "withdrawing", "deleting"]; // states of what is finished

let timer = null;
let waitSeconds = FIRST_WAIT_SECONDS;
let running = null;

/** What goes wrong with everything, as a code: `enrol_again`, `no_network`, …; null if nothing. */
export const line = { problem: null, sending: null, share: 0 };

export function tell(change) {
  Object.assign(line, change);
  announce({ line: { ...line } });
}

/** Try now, by this tab unless another does already. */
export function sendAll() {
  running ??= navigator.locks
    .request("spira-upload", { ifAvailable: true }, (lock) => (lock ? sendWaiting() : null))
    .catch(() => tell({ problem: "failed" }))
    .finally(() => {
      running = null;
    });
  return running;
}

/** Send whenever there may be a network.  Background Sync is left out: few browsers have it. */
export function startSending() {
  const soon = () => {
    waitSeconds = FIRST_WAIT_SECONDS;
    void sendAll();
  };
  addEventListener("online", soon);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && soon());
  soon();
}

function tryAgainLater(failure) {
  clearTimeout(timer);
  const seconds = failure?.retryAfterSeconds ?? waitSeconds * (0.75 + Math.random() / 2);
  waitSeconds = Math.min(2 * waitSeconds, LONGEST_WAIT_SECONDS);
  timer = setTimeout(() => void sendAll(), seconds * 1000);
}

async function sendWaiting() {
  const device = await fact("device");
  if (!device) return;
  const due = (await sessions()).filter(({ state, site, error }) => {
    const isInVain = state === "waiting" && error === "erased"; // each try would send all of it again
    return TO_SEND.includes(state) && site === device.site.hospital_id && !isInVain;
  });
  if (due.length === 0) return;
  try {
    for (const record of due.reverse()) await sendOne(device, record); // the oldest first
    waitSeconds = FIRST_WAIT_SECONDS;
    tell({ problem: null, sending: null, share: 0 });
  } catch (error) {
    const failure = error instanceof Failure ? error : new Failure(0, { error: "failed" });
    tell({ problem: problemOf(failure), sending: null, share: 0 });
    if (failure.status !== 401) tryAgainLater(failure);
  }
}

function problemOf({ status, code }) {
  if (status === 401) return "enrol_again";
  if (status === 0) return code;
  if (code === "too_much_today") return code;
  return status === 507 ? "disk_full" : "server";
}

async function sendOne(device, record) {
  const { key } = device;
  try {
    if (record.kind === "ask") await sendAsk(key, record);
    else if (record.state === "withdrawing") await sendWithdrawal(device, record);
    else if (record.state === "consenting") await sendConsent(key, record);
    else await sendRecord(device, record);
  } catch (failure) {
    const concernsAll = !(failure instanceof Failure) || failure.passes || failure.status === 401;
    if (concernsAll) throw failure;
    if (failure.code === "not_there" && record.state === "waiting") {
      await renew(record.id); // the device that sent it before is enrolled no more
      throw new Failure(0, { error: "again" });
    }
    // It will not pass by itself: said with the session, and the others go on.
    await change(record.id, (now) => {
      now.error = whyOf(failure);
    });
  }
}

/** Why the server does not take it, as a code. */
function whyOf({ code, body }) {
  const isClock = (body.problems ?? []).some(({ field, rule }) => field === "recorded_at" && rule === "future");
  return isClock ? "clock" : code || "server";
}

/** Send what is asked, or delete it; the audio goes from the phone as soon as the server has it. */
async function sendAsk(key, record) {
  const isGoing = record.state === "deleting";
  if (!isGoing) {
    const [take] = Object.values(record.takes);
    await sendBytes(key, take, (bytes) => tell({ sending: record.id, share: bytes / take.n_bytes }));
    await change(record.id, (now) => {
      now.is_tried = true; // the server may have it although no answer came
    });
  }
  const inference_id = record.inference_id ?? (isGoing && !record.is_tried ? null : await asked(key, record, isGoing));
  if (inference_id && !isGoing) {
    await changeWithoutAudio(record.id, (now) => {
      now.inference_id = inference_id;
      now.asked_at = isoWithOffset();
      now.number = ""; // nothing about the person stays on the phone
      now.error = null;
      if (now.state === "waiting") now.state = "asked";
    });
  }
  if (!isGoing && (await session(record.id))?.state !== "deleting") return;
  // Refused (404) where the phone was enrolled for somebody else since: then the server has it still.
  if (inference_id) await deleteInference(key, inference_id);
  await deleteSession(record.id);
}

/** The inference of a record, the same however often it is sent; null where it is refused and deleted. */
async function asked(key, record, isGoing) {
  const [take] = Object.values(record.takes);
  try {
    return (await ask(key, record.id, requestOf(record, take))).inference_id;
  } catch (failure) {
    if (isGoing && !failure.passes && failure.status !== 401) return null;
    throw failure.code === "missing_blobs" ? new Failure(0, { error: "again" }) : failure;
  }
}

/** A request as the API takes it. */
function requestOf(record, { task, sha256, recorded_at, capture }) {
  return {
    task,
    sha256,
    recorded_at,
    patient_rgh: record.number,
    agreed: record.agreed,
    capture: { app: "spira-web", ...capture },
    app_version: record.app_version,
  };
}

async function sendWithdrawal({ key, device_id }, record) {
  try {
    await withdraw(key, record.id);
  } catch (failure) {
    // 404: the server has nothing of it, or has it of a phone that was enrolled for somebody else.
    if (failure.status !== 404) throw failure;
    if (record.sent_as && record.sent_as !== device_id) throw new Failure(404, { error: "withdrawal_unknown" });
  }
  await change(record.id, (now) => {
    now.state = "withdrawn";
  });
}

async function sendConsent(key, record) {
  let settled;
  try {
    const receipt = await giveConsent(key, record.id, record.consent);
    settled = { state: "accepted", receipt };
  } catch (failure) {
    if (failure.status === 409) settled = { state: "withdrawn" }; // by somebody else
    else if (failure.status !== 404) throw failure;
    // Of a device that is enrolled no more: the data manager can take the consent.
    else settled = { state: "accepted", error: failure.code, consent: { ...record.consent, status: "pending" } };
  }
  await change(record.id, (now) => {
    if (now.state === "consenting") Object.assign(now, settled); // else withdrawn meanwhile
  });
}

async function sendRecord({ key, device_id }, record) {
  const takes = Object.values(record.takes);
  const total = takes.reduce((bytes, take) => bytes + take.n_bytes, 0);
  let before = 0;
  for (const take of takes) {
    const sent = (bytes) => tell({ sending: record.id, share: (before + bytes) / total });
    await sendBytes(key, take, sent);
    before += take.n_bytes;
  }
  await change(record.id, (now) => {
    now.sent_as = device_id; // the server may have it although no answer came
  });
  await settle(record, await commit(key, record));
}

async function sendBytes(key, take, sent) {
  const bytes = await bytesOf(take);
  if (bytes === null) throw new Failure(410, { error: "audio_lost" });
  let { offset, complete } = await offsetOf(key, take.sha256);
  let restarts = 0;
  sent(offset);
  while (!complete) {
    try {
      const part = bytes.slice(offset, offset + PART_BYTES);
      ({ offset, complete } = await sendPart(key, take.sha256, offset, bytes.byteLength, part));
    } catch (failure) {
      const elsewhere = failure.code === "wrong_offset" && Number.isInteger(failure.body.offset);
      if (!elsewhere && failure.code !== "digest_mismatch") throw failure;
      restarts += 1;
      if (restarts > MAX_RESTARTS) throw failure;
      ({ offset, complete } = await offsetOf(key, take.sha256));
    }
    sent(offset);
  }
}

/** The receipt of a session, which the server may have written earlier without it arriving here. */
async function commit(key, record) {
  try {
    return await sendSession(key, record.id, manifestOf(record));
  } catch (failure) {
    if (failure.code === "missing_blobs") throw new Failure(0, { error: "again" });
    if (failure.code !== "conflict") throw failure;
    const answer = await receipts(key);
    const receipt = answer.find(({ session_id }) => session_id === record.id);
    if (!receipt) throw failure;
    return receipt;
  }
}

/** The manifest of a session, as the API takes it. */
export function manifestOf(record) {
  const takes = Object.values(record.takes);
  return {
    form_version: record.form_version,
    app_version: record.app_version,
    revision: record.revision,
    recorded_at: takes.map((take) => take.recorded_at).sort()[0] ?? record.created_at,
    sent_at: isoWithOffset(),
    consent: record.consent,
    form: record.values,
    capture: { app: "spira-web", ...captureOf(takes) },
    files: takes.map(({ task, sha256, n_bytes, recorded_at, prompt_version }) => ({
      task,
      sha256,
      n_bytes,
      recorded_at,
      prompt_version,
    })),
  };
}

/** What the browser did to the takes: off only where it was reported off for each. */
function captureOf(takes) {
  const merged = (name) => {
    const reported = takes.map(({ capture }) => capture[name]);
    if (reported.includes(true)) return true;
    return reported.includes(null) ? null : false;
  };
  const sample_rate_hz = Math.min(...takes.map(({ capture }) => capture.sample_rate_hz));
  return { ns: merged("ns"), agc: merged("agc"), aec: merged("aec"), sample_rate_hz };
}

const digests = (files) => files.map(({ task, sha256 }) => `${task} ${sha256}`).sort().join();

async function settle(record, receipt) {
  const ours = Object.values(record.takes);
  if (digests(receipt.files) !== digests(ours)) throw new Failure(409, { error: "other_files" });
  const keep = (now) => {
    if (now.state !== "waiting") return false; // consent was withdrawn while it was on its way
    now.receipt = receipt;
    now.error = null;
    return true;
  };
  if (receipt.status !== "refused") {
    await changeWithoutAudio(record.id, (now) => {
      if (!keep(now)) return false;
      now.state = receipt.status; // accepted; or withdrawn, by somebody else
      now.form = {}; // nothing about the person stays on the phone
      now.values = {};
      return true;
    });
  } else {
    await change(record.id, (now) => {
      if (!keep(now)) return;
      now.state = "refused";
      now.problems = problemsOf(receipt, now);
    });
  }
}

/** What is to mend, by field of the form or by task. */
function problemsOf({ problems }, { titles }) {
  return problems
    .filter(({ field }) => field !== "recorded_at") // that of the first take, which is named too
    .map(({ field, rule, allowed }) =>
      Object.hasOwn(titles, field) ? { task: field, rule, allowed } : { field, rule, allowed },
    );
}
