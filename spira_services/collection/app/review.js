/* The last look before a session is finished and sent. */

import { el, tellNext } from "./dom.js";
import { problemInWords } from "./form.js";
import { formProblems, valuesOf } from "./form_rules.js";
import { isDone, isUsable } from "./steps.js";
import { change } from "./store.js";
import { sendAll } from "./upload.js";
import { both, number, t } from "./words.js";

export async function reviewStep({ id, form, record, steps }) {
  const error = el("p", { class: "error", role: "alert" });
  const titleOf = (step) => {
    const task = form.tasks.find((each) => each.task === step);
    return task ? both(task.title) : t(step);
  };
  const finish = async () => {
    const missing = steps.filter((step) => step !== "review" && !isDone(step, record, form));
    if (missing.length) {
      error.textContent = t("not_ready", { what: missing.map(titleOf).join(", ") });
      return;
    }
    const titles = Object.fromEntries(form.tasks.map(({ task, title }) => [task, title]));
    await change(id, (now) => {
      now.values = valuesOf(form.fields, now.form);
      now.form_version = form.version;
      now.app_version = self.SPIRA_VERSION;
      now.titles = titles;
      now.state = "waiting";
      now.error = null;
    });
    tellNext(t("finished"));
    location.hash = "#/";
    void sendAll();
  };
  const rows = steps.slice(0, -1).map((step) => {
    const done = isDone(step, record, form);
    return el(
      "li",
      { class: done ? "done" : "open" },
      el("div", {}, el("strong", {}, titleOf(step)), el("span", { class: "note" }, summary(step, record, form))),
      el("a", { href: `#/session/${id}/${step}`, "aria-label": `${t("change")}: ${titleOf(step)}` }, t("change")),
    );
  });
  return {
    title: t("review"),
    elements: [
      el("p", { class: "note" }, t("review_how")),
      record.problems.length > 0 &&
        el("ul", { class: "problems" }, record.problems.map((problem) => el("li", {}, problemInWords(problem, form)))),
      el("ul", { class: "review" }, rows),
      error,
      el(
        "div",
        { class: "bottom" },
        el("button", { type: "button", class: "primary", id: "finish", onclick: () => void finish() }, t(record.revision > 1 ? "finish_again" : "finish")),
      ),
    ],
  };
}

function summary(step, record, form) {
  if (step === "consent") return record.consent ? t(`consent_${record.consent.status}`) : t("missing_task");
  if (step === "form") {
    const wrong = formProblems(form.fields, record.form).length;
    const n = form.fields.filter(({ name }) => record.form[name]).length;
    if (wrong) return t(wrong === 1 ? "wrong_1" : "wrong_n", { n: wrong });
    return t("fields_filled", { n, all: form.fields.length });
  }
  const take = record.takes[step];
  if (take) return isUsable(take) ? t("seconds", { n: number(Math.round(10 * take.seconds) / 10) }) : t("task_bad");
  return t(record.skipped[step] ? "skipped" : "missing_task");
}
