/* Consent: the text with its version and scope, and what the person has decided. */

import { ask, el, paragraphs, radios } from "./dom.js";
import { change, deleteSession } from "./store.js";
import { isoWithOffset } from "./time.js";
import { both, has, t } from "./words.js";

const scopeInWords = (scope) => (has(`scope_${scope}`) ? t(`scope_${scope}`) : scope);

export async function consentStep({ id, form, record, next }) {
  const { version, text, scopes } = form.consent;
  let scope = record.consent?.scope ?? (scopes.length === 1 ? scopes[0] : null);
  let status = record.consent?.status ?? null;
  const error = el("p", { class: "error", role: "alert" });
  const choose = () => {
    error.textContent = "";
  };
  const save = async () => {
    if (!scope) error.textContent = t("scope_missing");
    else if (!status) error.textContent = t("consent_missing");
    else if (status === "refused") await refuse();
    else {
      await change(id, (now) => {
        const isConsents = ({ field }) => field === "consent";
        const same = now.consent?.status === status && now.consent.scope === scope;
        if (!same || now.problems.some(isConsents)) now.consent = { status, version, scope, at: isoWithOffset() };
        now.problems = now.problems.filter((problem) => !isConsents(problem));
      });
      await next();
    }
  };
  const refuse = async () => {
    const words = { title: t("consent_refused_title"), text: t("consent_refused_text") };
    if (!(await ask({ ...words, yes: t("consent_refused_yes"), no: t("cancel"), danger: true }))) return;
    await deleteSession(id);
    location.hash = "#/";
  };
  const answers = [
    ["granted", t("consent_granted")],
    ["pending", t("consent_pending"), t("consent_pending_why")],
    ["refused", t("consent_refused")],
  ];
  return {
    title: t("consent"),
    elements: [
      el("p", { class: "note" }, t("consent_how")),
      el("article", { class: "card text" }, paragraphs(both(text)), el("p", { class: "note" }, t("consent_version", { version, scopes: scopes.map(scopeInWords).join(", ") }))),
      scopes.length > 1 &&
        radios("scope", t("consent_scope"), scopes.map((name) => [name, scopeInWords(name)]), scope, (value) => {
          scope = value;
          choose();
        }),
      radios("consent", t("consent_answer"), answers, status, (value) => {
        status = value;
        choose();
      }),
      error,
      el("div", { class: "bottom" }, el("button", { type: "button", class: "primary", id: "next", onclick: () => void save() }, t("next"))),
    ],
  };
}
