/* Asking a model: who the recording is about, what the person agrees to, and sending it. */

import { ask, el, paragraphs, say } from "./dom.js";
import { hasRightLetter } from "./form_rules.js";
import { newSession } from "./session.js";
import { change, fact } from "./store.js";
import { sendAll } from "./upload.js";
import { both, has, number, t } from "./words.js";

/** Begin to ask: a recording comes first. */
export async function startAsk(device) {
  if (!(await fact("form"))) return say(t("no_form"));
  await navigator.storage?.persist?.().catch(() => false);
  const more = { kind: "ask", number: "", agreed: { labels: false, ab: false }, inference_id: null };
  location.hash = `#/session/${await newSession(device, more)}`;
  return undefined;
}

/** The last step: the recording was good enough to be kept, and is sent with what is said here. */
export async function sendStep({ id, form, record }) {
  const [take] = Object.values(record.takes);
  const error = el("p", { class: "error", id: "number-error", role: "alert" }, record.error && t(errorOf(record.error)));
  const typed = el("input", {
    id: "number",
    name: "number",
    autocomplete: "off",
    autocapitalize: "characters",
    spellcheck: "false",
    maxlength: "40",
    "aria-describedby": "number-why number-error",
    value: record.number,
  });
  const agrees = (name, words) =>
    el("label", { class: "choice" }, el("input", { type: "checkbox", id: `agrees-${name}`, name, checked: record.agreed[name] }), el("span", {}, words));
  const labels = agrees("labels", t("agrees_labels", { version: form.consent.version }));
  const ab = agrees("ab", t("agrees_ab"));
  const isOn = (label) => label.querySelector("input").checked;
  const send = async () => {
    const text = typed.value.trim();
    if (text && form.site.check_letter && !hasRightLetter(text) && !(await isRightAllTheSame())) return typed.focus();
    await change(id, (now) => {
      now.number = text;
      now.agreed = { labels: isOn(labels), ab: isOn(ab), version: isOn(labels) ? form.consent.version : "" };
      now.app_version = self.SPIRA_VERSION;
      now.state = "waiting";
      now.error = null;
    });
    location.hash = `#/answer/${id}`;
    void sendAll();
    return undefined;
  };
  return {
    title: t("send"),
    elements: [
      el("p", { class: "note" }, t("send_how", { n: number(Math.round(10 * take.seconds) / 10) })),
      el(
        "div",
        { class: "field" },
        el("label", { for: "number" }, t("number"), el("small", {}, t("optional"))),
        el("p", { class: "hint", id: "number-why" }, t("number_why")),
        typed,
        error,
      ),
      el(
        "fieldset",
        {},
        el("legend", {}, t("agrees")),
        el("p", { class: "hint" }, t("agrees_why")),
        el("details", {}, el("summary", {}, t("agrees_text")), paragraphs(both(form.consent.text))),
        el("div", { class: "choices column" }, labels, ab),
      ),
      el("div", { class: "bottom" }, el("button", { type: "button", class: "primary", id: "send-ask", onclick: () => void send() }, t("send_ask"))),
    ],
  };
}

const isRightAllTheSame = () =>
  ask({ title: t("letter_title"), text: t("letter_text"), yes: t("letter_yes"), no: t("letter_no"), careful: true });

/** The word for why the server did not take it. */
export const errorOf = (code) => (has(`ask_error_${code}`) ? `ask_error_${code}` : "ask_error_other");
