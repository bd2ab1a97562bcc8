/* What a model answered, in plain words.  Answers are fetched when somebody looks: none is kept. */

import * as api from "./api.js";
import { errorOf, startAsk } from "./ask.js";
import { ask, el, replaceIn, say } from "./dom.js";
import { message } from "./session.js";
import { change, deleteSession, onChange, session, sessions } from "./store.js";
import { inWords } from "./time.js";
import { line, sendAll } from "./upload.js";
import { has, languageNow, t } from "./words.js";

const OFTEN_SECONDS = 1; // between looks while an answer may come any moment
const SELDOM_SECONDS = 10;
const N_OFTEN = 30;

export async function answersScreen({ device }) {
  const list = el("ul", { class: "sessions" });
  let found = {}; // by inference, where the server could be asked
  const draw = async () => {
    const asks = (await sessions()).filter(({ kind }) => kind === "ask");
    replaceIn(list, ...asks.map((record) => item(record, found[record.inference_id])));
    if (asks.length === 0) replaceIn(list, el("li", { class: "note" }, t("no_answers")));
  };
  const look = async () => {
    const { inferences } = await api.inferences(device.key).catch(() => ({ inferences: [] })); // the list says less then
    found = Object.fromEntries(inferences.map((one) => [one.inference_id, one]));
    await draw();
  };
  await draw();
  void look();
  const stop = onChange(() => void draw());
  return {
    title: t("answers"),
    leave: stop,
    elements: [
      el("h1", {}, t("answers")),
      el("p", { class: "note" }, t("answers_why")),
      list,
      el("div", { class: "bottom" }, el("button", { type: "button", class: "primary", id: "ask", onclick: () => void startAsk(device) }, t("ask"))),
    ],
  };
}

function item(record, inference) {
  const state = stateOf(record, inference);
  const open = record.state === "draft" ? `#/session/${record.id}` : `#/answer/${record.id}`;
  return el(
    "li",
    { class: `session ${record.state === "draft" ? "draft" : state === "answered" ? "accepted" : ""}` },
    el("div", { class: "what" }, el("h3", {}, inWords(record.created_at, languageNow())), el("span", { class: "state" }, t(`ask_state_${state}`))),
    el(
      "div",
      { class: "actions" },
      el("a", { href: open, class: "button", "aria-label": `${t("look")}: ${inWords(record.created_at, languageNow())}` }, t(record.state === "draft" ? "resume" : "look")),
      record.state === "draft" && el("button", { type: "button", class: "quiet", onclick: () => void remove(record) }, t("delete")),
    ),
  );
}

/** How far an ask is: by the phone until the server has it, then by the server. */
function stateOf(record, inference) {
  if (record.state !== "asked") return line.sending === record.id ? "sending" : record.state;
  if (inference?.state !== "answered") return inference?.state ?? "asked";
  return inference.decision === null ? "again" : "answered";
}

export async function answerScreen({ device, path: [id] }) {
  let record = await session(id);
  if (record?.kind !== "ask") return message(t("not_here"));
  const panel = el("div", { id: "answer" });
  let inference = null;
  let trouble = "";
  let timer = null;
  let looks = 0;
  let spoken = "";
  let done = false;

  const draw = () => {
    const words = inference ? headOf(inference) : t(`ask_state_${stateOf(record)}`);
    if (words !== spoken) say(words);
    spoken = words;
    replaceIn(panel, ...(inference && inference.state !== "queued" ? answerOf(inference, record, device) : waiting(record, inference, trouble)));
  };
  const look = async () => {
    clearTimeout(timer);
    record = await session(id);
    if (done) return;
    if (record === undefined) {
      location.hash = "#/answers"; // deleted
      return;
    }
    if (record.state === "asked" && document.visibilityState === "visible") {
      try {
        inference = await api.inference(device.key, record.inference_id);
        trouble = "";
        // The server notes it once; where it is not reached, the next look says it.
        if (inference.state === "answered") void api.act(device.key, record.inference_id, "seen").catch(() => {});
      } catch (failure) {
        trouble = { 0: "answer_offline", 401: "enrol_again", 404: "answer_gone" }[failure.status] ?? "answer_server";
      }
    }
    if (done) return;
    draw();
    looks += 1;
    const isLast = inference !== null && inference.state !== "queued";
    if (!isLast) timer = setTimeout(() => void look(), 1000 * (looks < N_OFTEN ? OFTEN_SECONDS : SELDOM_SECONDS));
  };
  draw();
  void look();
  const again = () => {
    looks = 0;
    void look();
  };
  const stop = onChange(({ line: sending }) => sending || again());
  addEventListener("online", again);
  document.addEventListener("visibilitychange", again);
  return {
    title: t("answer"),
    leave: () => {
      done = true;
      clearTimeout(timer);
      stop();
      removeEventListener("online", again);
      document.removeEventListener("visibilitychange", again);
    },
    elements: [el("h1", {}, t("answer")), el("p", { class: "note" }, inWords(record.created_at, languageNow())), panel],
  };
}

const headOf = ({ state, decision }) =>
  state === "answered" ? t(decision === null ? "head_again" : `head_${decision}`) : t(`ask_state_${state}`);

function waiting(record, inference, trouble) {
  const state = stateOf(record, inference);
  const isHere = record.state === "waiting";
  return [
    el(
      "div",
      { class: "card answer wait" },
      el("h2", {}, t(`ask_state_${state}`)),
      record.state !== "deleting" && el("p", {}, isHere ? `${navigator.onLine ? "" : `${t("offline")} `}${t("will_send")}` : t("ask_waits")),
      trouble && el("p", { class: "care" }, t(trouble)),
      record.error && el("p", { class: "care" }, t(errorOf(record.error))),
    ),
    el(
      "div",
      { class: "bottom" },
      isHere && el("button", { type: "button", id: "send", onclick: () => void sendAll() }, t("send_now")),
      record.error === "malformed" && el("button", { type: "button", class: "primary", id: "mend", onclick: () => void mend(record) }, t("mend")),
      el("button", { type: "button", class: "quiet", id: "delete", onclick: () => void remove(record) }, t("delete")),
    ),
  ];
}

function answerOf(inference, record, device) {
  const isAnswer = inference.state === "answered" && inference.decision !== null;
  const isAgain = inference.state === "answered" && !isAnswer;
  const recordAgain = () => {
    void api.act(device.key, inference.inference_id, "recorded_again").catch(() => {}); // it is only counted
    void startAsk(device);
  };
  return [
    isAnswer && inference.meaning.includes("synthetic_cohort") && el("p", { class: "care" }, t("synthetic_cohort")),
    el(
      "div",
      { class: `card answer ${isAnswer ? inference.decision : "again"}` },
      el("h2", {}, headOf(inference)),
      isAnswer ? decisionOf(inference) : isAgain ? el("p", {}, t("again_means")) : el("p", {}, t(`ended_${inference.state}`)),
      isAgain && el("ul", { class: "problems" }, inference.record_again.map((code) => el("li", {}, soundInWords(code)))),
    ),
    isAnswer && [
      el("p", { class: "care" }, t("not_a_diagnosis")),
      inference.unusual.length > 0 && el("div", { class: "card" }, el("h3", {}, t("unusual")), el("ul", {}, inference.unusual.map((code) => el("li", {}, soundInWords(code))))),
      aboutOf(inference),
      feedbackOf(inference, device),
    ],
    el(
      "div",
      { class: "bottom" },
      el("button", { type: "button", class: isAnswer ? "" : "primary", id: "again", onclick: recordAgain }, t(isAnswer ? "ask_again" : "record_again")),
      el("button", { type: "button", class: "quiet", id: "delete", onclick: () => void remove(record) }, t("delete")),
    ),
  ].flat().filter(Boolean);
}

const percent = (share) => new Intl.NumberFormat(languageNow(), { style: "percent" }).format(share);

function decisionOf({ decision, probability, operating_point }) {
  const fill = el("div", { class: "fill" });
  const point = el("div", { class: "point" });
  fill.style.width = `${100 * probability}%`;
  point.style.left = `${100 * operating_point}%`;
  return [
    el("p", {}, t(`means_${decision}`)),
    el("div", { class: "scale", "aria-hidden": "true" }, fill, point),
    el("p", { class: "note" }, t("probability", { p: percent(probability), point: percent(operating_point) })),
  ];
}

function aboutOf({ window_scores, version, classifier, answered_at }) {
  const facts = [
    ["about_model", version],
    ["about_digest", classifier.replace("sha256:", "").slice(0, 12)],
    ["about_answered", inWords(answered_at, languageNow())],
    ["about_windows", t("windows", { n: window_scores.length, low: percent(Math.min(...window_scores)), high: percent(Math.max(...window_scores)) })],
  ];
  return el(
    "details",
    { class: "card", id: "about-answer" },
    el("summary", {}, t("about_answer")),
    el("p", {}, t("limits_1")),
    el("p", {}, t("limits_2")),
    el("dl", { class: "facts" }, facts.map(([name, value]) => [el("dt", {}, t(name)), el("dd", {}, value)])),
  );
}

function feedbackOf(inference, device) {
  const said = el("p", { class: "note", role: "status" });
  const say_ = async (action) => {
    try {
      await api.act(device.key, inference.inference_id, action);
      said.textContent = t("feedback_taken");
    } catch {
      said.textContent = t("no_network_now");
    }
  };
  const button = (action) => el("button", { type: "button", id: action, onclick: () => void say_(action) }, t(action));
  return el("section", { class: "feedback" }, el("h3", {}, t("feedback")), el("div", { class: "actions" }, button("agreed"), button("disagreed")), said);
}

/** A code of the model about the recording in words: what it is, and what helps. */
const soundInWords = (code) => (has(`sound_${code}`) ? t(`sound_${code}`) : t("sound_other"));

async function mend(record) {
  await change(record.id, (now) => {
    now.state = "draft";
  });
  location.hash = `#/session/${record.id}/send`;
}

async function remove(record) {
  const isDraft = record.state === "draft";
  const words = isDraft ? "delete_ask_text" : "delete_answer_text";
  if (!(await ask({ title: t("delete_ask_title"), text: t(words), yes: t("delete"), no: t("cancel"), danger: true }))) return;
  if (isDraft) await deleteSession(record.id);
  else {
    await change(record.id, (now) => {
      now.state = "deleting";
    });
    void sendAll();
  }
  location.hash = "#/answers";
}
