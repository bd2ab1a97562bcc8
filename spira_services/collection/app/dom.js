/* Elements without a framework: make them, show them, ask a question, speak to a screen reader. */

/** An element.  `on…` are listeners, `false` and `null` leave an attribute out. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value") element.value = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Paragraphs of a text, which blank lines divide. */
export function paragraphs(text) {
  return text.split(/\n\s*\n/).map((part) => el("p", {}, part.trim()));
}

/** A group of large radio buttons.  `options` are `[value, title, note]`. */
export function radios(name, legend, options, chosen, onchoose, described = null) {
  const labels = options.map(([value, title, note]) =>
    el(
      "label",
      { class: "choice" },
      el("input", { type: "radio", name, value, id: `${name}-${value || "none"}`, checked: value === chosen, onchange: () => onchoose(value) }),
      el("span", {}, title, note && el("small", {}, note)),
    ),
  );
  return el("fieldset", { id: `field-${name}`, "aria-describedby": described }, el("legend", {}, legend), el("div", { class: "choices" }, labels));
}

/** Show `content` in place of what is there, leaving the keyboard where it was. */
export function replaceIn(parent, ...content) {
  const focused = document.activeElement?.id;
  parent.replaceChildren(...content.filter(Boolean));
  if (focused && parent.querySelector(`#${CSS.escape(focused)}`)) {
    document.getElementById(focused).focus({ preventScroll: true });
  }
}

/** Say something to those who hear the page. */
export function say(text) {
  document.getElementById("spoken").textContent = text;
}

/** Ask before what cannot be undone (`danger`) or is rarely right (`careful`); true if it is wanted. */
export function ask({ title, text, yes, no, danger = false, careful = false }) {
  return new Promise((resolve) => {
    const close = (answer) => () => dialog.close(answer ? "yes" : "no");
    const dialog = el(
      "dialog",
      { "aria-labelledby": "question" },
      el("h2", { id: "question" }, title),
      paragraphs(text),
      el(
        "div",
        { class: "actions" },
        el("button", { type: "button", class: careful ? "primary" : "", autofocus: true, onclick: close(false) }, no),
        el("button", { type: "button", class: danger ? "danger" : careful ? "" : "primary", id: "yes", onclick: close(true) }, yes),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

let told = "";

/** A sentence for the screen that is shown next. */
export function tellNext(words) {
  told = words;
}

export function toldBefore() {
  const words = told;
  told = "";
  return words;
}
