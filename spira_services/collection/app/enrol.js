/* Enrolment: a one-time code becomes a key that stays on the phone. */

import * as api from "./api.js";
import { el, paragraphs } from "./dom.js";
import { installHint } from "./install.js";
import { announce, setFact } from "./store.js";
import { sendAll } from "./upload.js";
import { t } from "./words.js";

const N_LETTERS = 12;
let given = "";

/** Take a code out of the address, where it would stay in the history. */
export function rememberCode() {
  const found = /^#code=([A-Za-z0-9-]+)$/.exec(location.hash);
  if (!found) return;
  given = found[1].toUpperCase();
  history.replaceState(null, "", "#/enrol");
}

/** A code in groups of four, however it was typed. */
const written = (text) => {
  const plain = text.toUpperCase().replace(/[^A-Z0-9]/g, "").slice(0, N_LETTERS);
  return plain.match(/.{1,4}/g)?.join("-") ?? "";
};

/** Which telephone this is: the device is a confound, so its kind goes with the recordings. */
async function telephone() {
  const hints = ["model", "platformVersion"];
  const said = await navigator.userAgentData?.getHighEntropyValues?.(hints).catch(() => null);
  if (said?.platform) {
    return { model: said.model || said.platform, os: `${said.platform} ${said.platformVersion ?? ""}`.trim() };
  }
  const system = /\(([^)]*)\)/.exec(navigator.userAgent)?.[1] ?? "";
  const parts = system.split(";").map((part) => part.trim());
  return { model: parts[0] || "unknown", os: parts[1] || "unknown" };
}

export async function enrolScreen({ device, refresh }) {
  const error = el("p", { class: "error", id: "code-error", role: "alert" });
  const code = el("input", {
    id: "code",
    name: "code",
    class: "code",
    autocomplete: "one-time-code",
    autocapitalize: "characters",
    spellcheck: "false",
    required: true,
    "aria-describedby": "code-form code-error",
    value: written(given),
    oninput: () => {
      code.value = written(code.value);
      code.removeAttribute("aria-invalid");
      error.textContent = "";
    },
  });
  const button = el("button", { class: "primary" }, t("enrol_now"));
  const wrong = (words) => {
    error.textContent = words;
    code.setAttribute("aria-invalid", "true");
    code.focus();
  };
  const enrol = async (event) => {
    event.preventDefault();
    if (code.value.replaceAll("-", "").length !== N_LETTERS) return wrong(t("bad_code_form"));
    button.disabled = true;
    button.textContent = t("enrolling");
    try {
      const { model, os } = await telephone();
      const { device_id, key, hospital_id } = await api.enrol(code.value, model, os);
      const form = await api.form(key).catch(() => null); // main fetches it where this fails
      if (form) await setFact("form", form);
      const site = form?.site ?? { hospital_id, name: hospital_id };
      await setFact("device", { device_id, key, site });
      given = "";
      await navigator.storage?.persist?.().catch(() => false);
      announce();
      if (location.hash === "#/" || location.hash === "") await refresh();
      else location.hash = "#/";
      void sendAll();
    } catch (failure) {
      button.disabled = false;
      button.textContent = t("enrol_now");
      if (failure.status === 0) wrong(t("enrol_no_network"));
      else wrong(t(failure.status === 403 || failure.status === 422 ? "bad_code" : "enrol_server"));
    }
    return undefined;
  };
  return {
    title: t("enrol"),
    elements: [
      el("h1", {}, t("enrol")),
      installHint({ first: true }),
      device && el("p", { class: "note" }, t("enrolled_already", { site: device.site.name })),
      paragraphs(t("enrol_why")),
      el(
        "form",
        { novalidate: true, onsubmit: enrol, class: "card" },
        el("label", { for: "code" }, t("code")),
        code,
        el("p", { class: "hint", id: "code-form" }, t("code_form")),
        error,
        button,
      ),
    ].flat(),
  };
}
