/* Installation to the home screen: how, and why it matters. */

import { el } from "./dom.js";
import { t } from "./words.js";

let offer = null; // of the browser, where it makes one

addEventListener("beforeinstallprompt", (event) => {
  event.preventDefault();
  offer = event;
});

const isInstalled = () =>
  navigator.standalone === true || matchMedia("(display-mode: standalone)").matches;
const isApple = () =>
  /iPhone|iPad/.test(navigator.userAgent) || (navigator.platform === "MacIntel" && navigator.maxTouchPoints > 1);

/** How to install.  `first`: before the code is typed. */
export function installHint({ first = false } = {}) {
  if (isInstalled()) return null;
  const install = async () => {
    await offer.prompt();
    offer = null;
  };
  const how = isApple() ? [t("install_ios")] : [t("install_why"), !offer && t("install_menu")];
  return el(
    "details",
    { class: "card install", open: first && isApple(), id: "install" },
    el("summary", {}, t("install")),
    how.filter(Boolean).map((words) => el("p", {}, words)),
    first && isApple() && el("p", {}, t("install_ios_first")),
    offer && el("button", { type: "button", onclick: () => void install() }, t("install")),
  );
}
