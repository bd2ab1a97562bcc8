/* A session from consent to review: one step at a time, each kept as soon as it is done. */

import { sendStep } from "./ask.js";
import { consentStep } from "./consent.js";
import { el } from "./dom.js";
import { formStep } from "./form.js";
import { reviewStep } from "./review.js";
import { isDone, stepsOf } from "./steps.js";
import { addSession, fact, session } from "./store.js";
import { taskStep } from "./task.js";
import { isoWithOffset } from "./time.js";
import { t } from "./words.js";

let held = null; // the session that is open in this tab: `{id, release}`

/** Make a session, or with `more` something like it; return its id. */
export async function newSession(device, more = {}) {
  const id = crypto.randomUUID();
  await addSession({
    id,
    site: device.site.hospital_id,
    site_name: device.site.name,
    created_at: isoWithOffset(),
    state: "draft",
    revision: 1,
    consent: null,
    takes: {},
    skipped: {},
    form: {}, // as typed
    values: {}, // as sent
    form_done: false,
    confirmed_number: "",
    problems: [],
    receipt: null,
    error: null,
    ...more,
  });
  return id;
}

/** Keep other tabs from changing the same session; false where one does already. */
async function hold(id) {
  if (held?.id === id) return true;
  releaseSession();
  return new Promise((resolve) => {
    void navigator.locks.request(`spira-session-${id}`, { ifAvailable: true }, (lock) => {
      if (!lock) return resolve(false);
      return new Promise((release) => {
        held = { id, release };
        resolve(true);
      });
    });
  });
}

export function releaseSession() {
  held?.release();
  held = null;
}

export const message = (words) => ({
  title: words,
  elements: [el("h1", {}, words), el("a", { href: "#/", class: "button" }, t("home"))],
});

export async function sessionScreen({ device, path: [id, wanted], refresh }) {
  const form = await fact("form");
  const record = await session(id);
  if (!form) return message(t("no_form"));
  if (record?.state !== "draft") return message(t(record ? "closed" : "not_here"));
  if (!(await hold(id))) return message(t("other_window"));
  const steps = stepsOf(form, record);
  const firstOpen = (now) => steps.find((step) => !isDone(step, now, form));
  const consented = record.consent !== null || !steps.includes("consent");
  const step = consented && steps.includes(wanted) ? wanted : firstOpen(record); // nothing before consent
  if (step !== wanted) history.replaceState(null, "", `#/session/${id}/${step}`);
  const go = (to) => {
    location.hash = `#/session/${id}/${to}`;
  };
  const n = steps.indexOf(step);
  const next = async () => {
    const now = await session(id);
    const mends = now.revision > 1; // only what was refused is gone through again
    go(mends ? firstOpen(now) : steps[n + 1]);
  };
  const make = { consent: consentStep, form: formStep, review: reviewStep, send: sendStep }[step] ?? taskStep;
  const made = await make({ id, device, form, record, step, steps, next, go, refresh });
  const progress = steps.map((name, i) => el("li", { class: i === n ? "now" : isDone(name, record, form) ? "done" : "" }));
  return {
    title: made.title,
    leave: made.leave,
    focus: made.focus,
    elements: [
      el(
        "div",
        { class: "steps", id: "steps" },
        n > 0 ? el("a", { href: `#/session/${id}/${steps[n - 1]}`, id: "back" }, t("back")) : el("span"),
        el("span", {}, t("step", { n: n + 1, all: steps.length })),
        el("a", { href: "#/", id: "leave" }, t("leave")),
        el("ol", { "aria-hidden": "true" }, progress),
      ),
      el("h1", {}, made.title),
      ...made.elements,
    ],
  };
}
