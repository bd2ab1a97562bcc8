/* The steps of a session, and which of them are done. */

import { formProblems } from "./form_rules.js";

const ASK_TASK = "SENTENCE"; // what the models learned from

/** The steps of a session, or of asking a model. */
export const stepsOf = (form, { kind }) =>
  kind === "ask" ? [ASK_TASK, "send"] : ["consent", ...form.tasks.map(({ task }) => task), "form", "review"];

/** Whether a take can be sent: nothing is wrong with it, or what is wrong may be kept and is. */
export const isUsable = (take) =>
  take !== undefined && (take.findings.length === 0 || (take.kept && take.findings.every(({ keep }) => keep)));

/** The step at which a problem can be mended. */
export function stepOf(problem, form) {
  if (form.tasks.some(({ task }) => task === problem.task)) return problem.task;
  return problem.field === "consent" ? "consent" : "form";
}

/** Whether a step has nothing left to do. */
export function isDone(step, record, form) {
  if (step === "review" || step === "send") return false;
  if (record.problems.some((problem) => stepOf(problem, form) === step)) return false;
  if (step === "consent") return record.consent !== null;
  if (step === "form") return record.form_done && formProblems(form.fields, record.form).length === 0;
  const { required } = form.tasks.find(({ task }) => task === step);
  return isUsable(record.takes[step]) || (!required && record.skipped[step] === true);
}
