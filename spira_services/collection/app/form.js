/* The form, drawn from what the server says about its fields; every keystroke is kept. */

import { ask, el, radios } from "./dom.js";
import { hasRightLetter, problemOf } from "./form_rules.js";
import { change } from "./store.js";
import { isoWithOffset } from "./time.js";
import { both, has, rangeInWords, t, unitInWords } from "./words.js";

const GROUPS = ["person", "vitals", "clinic"];
const MOST_RADIOS = 5; // more answers go into a list

export async function formStep({ id, form, record, next }) {
  const typed = { ...record.form };
  const problems = new Map(record.problems.filter(({ field }) => field).map((problem) => [problem.field, problem]));
  const errors = new Map();
  let confirmed = record.confirmed_number;
  const summary = el("div", { class: "summary", id: "summary", tabindex: "-1" });

  const fields = el("div");
  const inputsOf = ({ name }) => [...fields.querySelectorAll(`[name="${CSS.escape(name)}"]`)];
  const showError = (field, problem) => {
    const words = problem ? ruleInWords(problem, field) : "";
    errors.get(field.name).textContent = words;
    inputsOf(field).forEach((input) => (words ? input.setAttribute("aria-invalid", "true") : input.removeAttribute("aria-invalid")));
  };
  const type = (field, text) => {
    typed[field.name] = text;
    problems.delete(field.name);
    showError(field, null);
    keepTyped(id, field.name, text);
  };
  const look = (field) => {
    const problem = problems.get(field.name) ?? problemOf(field, typed[field.name]);
    if (typed[field.name]?.trim()) showError(field, problem); // an empty field is looked at in the end
  };

  const save = async () => {
    const wrong = form.fields.flatMap((field) => {
      const problem = problems.get(field.name) ?? problemOf(field, typed[field.name]);
      showError(field, problem);
      return problem ? [field] : [];
    });
    summary.replaceChildren();
    if (wrong.length) {
      const links = wrong.map((field) =>
        el("li", {}, el("a", { href: `#field-${field.name}`, onclick: (event) => goTo(event, field) }, both(field.title))),
      );
      summary.append(el("h2", {}, t(wrong.length === 1 ? "wrong_1" : "wrong_n", { n: wrong.length })), el("ul", {}, links));
      summary.focus();
      return;
    }
    if (!(await letterIsRight())) return;
    await change(id, (now) => {
      Object.assign(now.form, typed);
      now.problems = now.problems.filter((problem) => problem.task);
      now.form_done = true;
    });
    await next();
  };

  const goTo = (event, field) => {
    event.preventDefault();
    const inputs = inputsOf(field);
    (inputs.find((input) => input.checked) ?? inputs[0]).focus();
  };

  /** The letter is asked about once for a number: the rule may be wrong, the wristband is not. */
  const letterIsRight = async () => {
    const field = form.fields.find(({ kind }) => kind === "number_of_hospital");
    const text = field && typed[field.name]?.trim();
    if (!text || !form.site.check_letter || hasRightLetter(text)) return true;
    if (confirmed === text) return true;
    const words = { title: t("letter_title"), text: t("letter_text"), yes: t("letter_yes"), no: t("letter_no"), careful: true };
    if (!(await ask(words))) {
      inputsOf(field)[0].focus();
      return false;
    }
    confirmed = text;
    await change(id, (now) => {
      now.confirmed_number = text;
    });
    return true;
  };

  for (const name of new Set([...GROUPS, ...form.fields.map(({ group }) => group)])) {
    const drawn = form.fields
      .filter(({ group }) => group === name)
      .map((field) => drawField(field, typed[field.name] ?? "", errors, type, look));
    const title = has(`group_${name}`) ? t(`group_${name}`) : name;
    if (drawn.length) fields.append(el("section", { class: "group" }, el("h2", {}, title), drawn));
  }
  form.fields.forEach((field) => problems.has(field.name) && showError(field, problems.get(field.name)));
  return {
    title: t("form"),
    focus: problems.size ? `[name="${form.fields.find(({ name }) => problems.has(name))?.name}"]` : null,
    elements: [
      el("p", { class: "note" }, t("form_saved")),
      summary,
      fields,
      el("div", { class: "bottom" }, el("button", { type: "button", class: "primary", id: "next", onclick: () => void save() }, t("next"))),
    ],
  };
}

const unsaved = new Map(); // of a session: what was typed since the last write
let writing = null;

/** Write what is typed, one write at a time: the last keystroke is on the disk soon after it. */
function keepTyped(id, name, text) {
  unsaved.set(id, { ...unsaved.get(id), [name]: text });
  writing ??= writeTyped().finally(() => {
    writing = null;
  });
}

async function writeTyped() {
  while (unsaved.size) {
    const [[id, fields]] = unsaved;
    unsaved.delete(id);
    await change(id, (now) => {
      if (now.state !== "draft") return;
      Object.assign(now.form, fields);
      now.problems = now.problems.filter(({ field }) => !(field in fields));
    });
  }
}

function drawField(field, text, errors, type, look) {
  const { name } = field;
  const error = el("p", { class: "error", id: `error-${name}` });
  errors.set(name, error);
  const range = ["whole", "number"].includes(field.kind) ? rangeInWords(field) : "";
  const notes = [range, field.kind === "text" && !field.values?.length && t("no_names")].filter(Boolean).join("; ");
  const hint = notes && el("p", { class: "hint", id: `hint-${name}` }, notes);
  const described = `${hint ? `hint-${name} ` : ""}error-${name}`;
  const title = [both(field.title), !field.required && el("small", {}, t("optional"))];
  const options = optionsOf(field);
  if (options && options.length <= MOST_RADIOS) {
    const chosen = options.some(([value]) => value === text) ? text : field.required ? null : "";
    const group = radios(name, title, options, chosen, (value) => type(field, value), described);
    return el("div", { class: "field" }, group, hint, error);
  }
  const common = { id: `field-${name}`, name, "aria-describedby": described, required: field.required, onblur: () => look(field) };
  const input = options ? listOf(options, text, field, common, type) : inputOf(field, text, common, type);
  const unit = field.unit && el("span", { class: "unit", "aria-hidden": "true" }, unitInWords(field.unit));
  return el("div", { class: "field" }, el("label", { for: `field-${name}` }, title), hint, el("div", { class: "with-unit" }, input, unit), error);
}

function optionsOf(field) {
  const none = field.required ? [] : [["", t("not_filled")]];
  if (field.kind === "flag") return [["true", t("yes")], ["false", t("no")], ...none];
  if (!field.values?.length) return null;
  return [...field.values.map((value) => [String(value), both(field.titles?.[value]) || String(value)]), ...none];
}

function listOf(options, text, field, common, type) {
  const first = field.required ? [["", t("choose")]] : [];
  const entries = [...first, ...options].map(([value, title]) => el("option", { value, selected: value === text }, title));
  const select = el("select", { ...common, onchange: () => type(field, select.value) }, entries);
  select.value = text;
  return select;
}

function inputOf(field, text, common, type) {
  const kinds = {
    whole: { inputmode: "numeric" },
    number: { inputmode: "decimal" },
    date: { type: "date" },
    instant: { type: "datetime-local" },
    number_of_hospital: { autocapitalize: "characters" },
  };
  const input = el("input", {
    type: "text",
    autocomplete: "off",
    spellcheck: "false",
    ...kinds[field.kind],
    ...common,
    value: text,
    oninput: () => type(field, input.value),
  });
  if (field.kind !== "instant") return [input];
  const now = () => {
    input.value = isoWithOffset().slice(0, "2026-11-30T12:00".length);
    type(field, input.value);
  };
  return [input, el("button", { type: "button", onclick: now }, t("now"))];
}

function ruleInWords(problem, field) {
  const { rule, allowed } = problem;
  if (rule === "range" && field) return t("rule_range", { range: rangeInWords(field) });
  if (rule === "record_again" && has(`why_${allowed}`)) return t(`why_${allowed}`);
  if (rule === "format" && allowed) return t("rule_format_like", { like: allowed });
  if (rule === "format" && has(`rule_format_${field?.kind}`)) return t(`rule_format_${field.kind}`);
  return t(has(`rule_${rule}`) ? `rule_${rule}` : "rule_other");
}

/** A problem that the server found, with the name of its field or task. */
export function problemInWords(problem, form) {
  const field = form?.fields.find(({ name }) => name === problem.field);
  const task = form?.tasks.find((each) => each.task === problem.task);
  const name = both((task ?? field)?.title) || (has(problem.field) ? t(problem.field) : problem.field);
  return `${name}: ${ruleInWords(problem, field)}`;
}
