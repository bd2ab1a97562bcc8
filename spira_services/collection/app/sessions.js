/* The list: what is on this phone, what is stored, what was refused and why. */

import { startAsk } from "./ask.js";
import { ask, el, replaceIn, say, toldBefore } from "./dom.js";
import { problemInWords } from "./form.js";
import { installHint } from "./install.js";
import { newSession, releaseSession } from "./session.js";
import { change, changeWithoutAudio, deleteSession, fact, isUnsent, onChange, sessions } from "./store.js";
import { inWords, isoWithOffset } from "./time.js";
import { TO_SEND, line, sendAll } from "./upload.js";
import { both, has, languageNow, t } from "./words.js";

const N_STORED = 10; // receipts that are shown unless all are asked for
const LITTLE_BYTES = 100e6;

let showsAll = false;

export async function sessionsScreen({ device }) {
  releaseSession();
  const list = el("div", { id: "list" });
  const answers = el("p");
  const status = el("section", { class: "sending", "aria-label": t("send_now") });
  const words = toldBefore();
  if (words) say(words);
  const form = await fact("form");
  const draw = async () => {
    const all = await sessions();
    const asks = all.filter(({ kind }) => kind === "ask");
    replaceIn(status, ...statusOf(all));
    replaceIn(answers, asks.length > 0 && el("a", { href: "#/answers", class: "button", id: "answers" }, t("answers_n", { n: asks.length })));
    replaceIn(list, ...groups(all.filter(({ kind }) => kind !== "ask"), { device, form }, draw));
  };
  await draw();
  const stop = onChange(() => void draw());
  const online = () => void draw();
  addEventListener("online", online);
  addEventListener("offline", online);
  return {
    title: t("sessions"),
    leave: () => {
      stop();
      removeEventListener("online", online);
      removeEventListener("offline", online);
    },
    elements: [
      el("h1", {}, t("sessions")),
      words && el("p", { class: "flash" }, words),
      el(
        "div",
        { class: "modes" },
        mode("start", () => void start(device)),
        mode("ask", () => void startAsk(device)),
      ),
      answers,
      status,
      list,
      installHint(),
      await about(device),
    ],
  };
}

const mode = (name, act) =>
  el("button", { type: "button", class: "primary large", id: name, onclick: act }, el("span", {}, t(name), el("small", {}, t(`${name}_why`))));

async function start(device) {
  if (!(await fact("form"))) return say(t("no_form"));
  await navigator.storage?.persist?.().catch(() => false);
  location.hash = `#/session/${await newSession(device)}/consent`;
  return undefined;
}

function statusOf(all) {
  const waiting = all.filter(({ state }) => TO_SEND.includes(state)).length;
  const problem = line.problem && has(line.problem) ? line.problem : line.problem && "server";
  const sends = line.sending !== null;
  const words = sends
    ? t("sending", { share: Math.round(100 * line.share) })
    : problem && waiting + (problem === "enrol_again")
      ? t(problem)
      : waiting
        ? `${navigator.onLine ? "" : `${t("offline")} `}${t("will_send")}`
        : all.some(isUnsent)
          ? ""
          : t("all_stored");
  return [
    words && el("p", { class: problem && !sends ? "care" : "" }, words),
    sends && el("progress", { max: "1", value: line.share, "aria-label": words }),
    waiting > 0 && !sends && el("button", { type: "button", id: "send", onclick: () => void sendAll() }, t("send_now")),
    problem === "enrol_again" && el("a", { href: "#/enrol", class: "button" }, t("enrol")),
  ];
}

function groups(all, context, draw) {
  const of = (...states) => all.filter(({ state }) => states.includes(state));
  const stored = of("accepted", "withdrawn");
  const shown = showsAll ? stored : stored.slice(0, N_STORED);
  const more = () => {
    showsAll = true;
    void draw();
  };
  return [
    group("to_mend", of("refused"), context),
    group("to_finish", of("draft"), context),
    group("on_phone", of(...TO_SEND), context),
    group("stored", shown, context),
    stored.length > shown.length &&
      el("button", { type: "button", id: "more", onclick: more }, t("show_all", { n: stored.length })),
    all.length === 0 && el("p", { class: "note" }, t("none_yet")),
  ];
}

function group(name, records, context) {
  if (records.length === 0) return null;
  const items = records.map((record) => item(record, context));
  return el("section", {}, el("h2", {}, t(name)), el("ul", { class: "sessions" }, items));
}

/** What a session is called on the screen: nothing about the person. */
export const nameOf = (record) => t("session_name", { name: record.id.slice(0, 4).toUpperCase() });

function item(record, context) {
  const uploading = line.sending === record.id;
  const state = uploading ? "uploading" : record.state;
  return el(
    "li",
    { class: `session ${state}` },
    el(
      "div",
      { class: "what" },
      el("h3", {}, nameOf(record)),
      el("span", { class: "state" }, t(`state_${state}`)),
      el("p", { class: "note" }, inWords(record.created_at, languageNow())),
    ),
    explanation(record, context),
    el("div", { class: "actions" }, actions(record)),
  );
}

function explanation(record, { device, form }) {
  if (record.state === "refused") {
    const words = record.problems.map((problem) => el("li", {}, problemInWords(problem, form)));
    return el("ul", { class: "problems" }, words);
  }
  if (record.site !== device.site.hospital_id && isUnsent(record)) {
    return el("p", { class: "care" }, t("elsewhere", { site: record.site_name }));
  }
  if (record.error) {
    const known = has(`error_${record.error}`) ? `error_${record.error}` : "error_other";
    return el("p", { class: "care" }, t(known, { code: record.error }));
  }
  if (!record.receipt || record.state !== "accepted") return null;
  const { received_at, files } = record.receipt;
  return el(
    "details",
    { id: `receipt-${record.id}` },
    el("summary", {}, t("receipt")),
    el("p", { class: "note" }, t("received_at", { at: inWords(received_at, languageNow()) })),
    el("ul", { class: "digests" }, files.map(({ task, sha256 }) => el("li", {}, `${taskTitle(record, task)} `, el("code", {}, sha256)))),
    button("withdraw", record, () => void withdraw(record), "quiet"),
  );
}

const taskTitle = (record, task) => both(record.titles?.[task]) || task;

function button(name, record, act, style = "") {
  const about = { id: `${name}-${record.id}`, "aria-label": `${t(name)}: ${nameOf(record)}` };
  return el("button", { type: "button", class: style, onclick: act, ...about }, t(name));
}

function actions(record) {
  const open = () => {
    location.hash = `#/session/${record.id}`;
  };
  switch (record.state) {
    case "draft":
      return [button("resume", record, open, "primary"), button("delete", record, () => void remove(record), "quiet")];
    case "refused":
      return [button("mend", record, () => void mend(record).then(open), "primary"), button("withdraw", record, () => void withdraw(record), "quiet")];
    case "waiting":
      return [
        record.error && button("mend", record, () => void mend(record).then(open)),
        button("withdraw", record, () => void withdraw(record), "quiet"),
      ];
    case "accepted":
      return [isPending(record) && button("consent_came", record, () => void takeConsent(record))];
    default:
      return [];
  }
}

const isPending = (record) => record.consent?.status === "pending";

async function takeConsent(record) {
  const words = { title: t("consent_came_title"), text: t("consent_came_text") };
  if (!(await ask({ ...words, yes: t("consent_came_yes"), no: t("cancel") }))) return;
  await change(record.id, (now) => {
    now.state = "consenting";
    now.consent = { ...now.consent, status: "granted", at: isoWithOffset() };
    now.error = null;
  });
  void sendAll();
}

/** Open a session again; what was refused is sent as the next revision. */
async function mend(record) {
  await change(record.id, (now) => {
    if (now.state === "refused") now.revision = (now.receipt?.revision ?? now.revision) + 1;
    if (now.error === "audio_lost") now.takes = {};
    now.state = "draft";
    now.error = null;
  });
}

async function remove(record) {
  const sure = await ask({ title: t("delete_title"), text: t("delete_text"), yes: t("delete"), no: t("cancel"), danger: true });
  if (!sure) return;
  if (record.revision === 1) await deleteSession(record.id);
  else await forget(record); // an earlier revision is on the server
}

async function withdraw(record) {
  const sure = await ask({ title: t("withdraw_title"), text: t("withdraw_text"), yes: t("withdraw_yes"), no: t("cancel"), danger: true });
  if (sure) await forget(record);
}

/** Delete what is on the phone now; the server is told as soon as there is a network. */
async function forget(record) {
  await changeWithoutAudio(record.id, (now) => {
    now.state = "withdrawing";
    now.takes = {};
    now.form = {};
    now.values = {};
    now.problems = [];
    now.error = null;
  });
  void sendAll();
}

async function about(device) {
  const kept = await navigator.storage?.persisted?.().catch(() => false);
  const { quota = Infinity, usage = 0 } = (await navigator.storage?.estimate?.().catch(() => ({}))) ?? {};
  const facts = [
    ["about_site", device.site.name],
    ["about_kept", t(kept ? "kept_yes" : "kept_no")],
    ["about_version", self.SPIRA_VERSION],
  ];
  return el(
    "section",
    { class: "about" },
    quota - usage < LITTLE_BYTES && el("p", { class: "care" }, t("little_room")),
    el("h2", {}, t("about")),
    el("dl", {}, facts.map(([name, value]) => [el("dt", {}, t(name)), el("dd", {}, value)])),
    el("a", { href: "#/enrol" }, t("enrol_other")),
  );
}
