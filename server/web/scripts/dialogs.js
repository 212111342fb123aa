// Dialogs of index.html: opened, answered, closed. None of them sends its form anywhere.

import { byId, el } from "./dom.js";
import { SHORTCUTS } from "./keys.js";

const SENDABLE = /^[\x21-\x7e]*$/; // in a header

/** Open a dialog; resolves to whether it was submitted (not cancelled, not left with Escape). */
function answered(dialog) {
  const form = dialog.querySelector("form");
  return new Promise((resolve) => {
    let yes = false;
    form.onsubmit = (event) => {
      event.preventDefault();
      yes = true;
      dialog.close();
    };
    dialog.onclick = (event) => {
      if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
    };
    dialog.onclose = () => resolve(yes);
    dialog.showModal();
  });
}

/** Whether the person agrees. */
export function confirmed(title, text) {
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  return answered(byId("confirm"));
}

/** Ask for the server's key; null if none is given. `refused`: the one sent was not accepted. */
export async function askKey(refused) {
  const box = byId("key-value");
  let text = refused
    ? "It did not accept the key that was sent. Check it and enter it again."
    : "Whoever runs the server can give you one.";
  for (;;) {
    box.value = "";
    byId("key-text").textContent = text;
    const key = (await answered(byId("key"))) ? box.value.trim() : "";
    if (SENDABLE.test(key)) return key || null;
    text = "This is not a whole key: there is a character in it that no key has. Copy it again.";
  }
}

export function showShortcuts() {
  const rows = SHORTCUTS.map(([keys, what]) =>
    el("div", {}, el("dt", {}, what), el("dd", {}, ...keys.map((key) => el("kbd", {}, key)))),
  );
  byId("shortcut-list").replaceChildren(...rows);
  return answered(byId("shortcuts"));
}

/** The settings of the open conversation; `change(changes)` is called with each one. */
export function showSettings(settings, change) {
  const dialog = byId("settings");
  const { elements } = dialog.querySelector("form");
  for (const name of ["system", "temperature", "top_p", "max_tokens", "seed"]) {
    const field = elements.namedItem(name);
    field.value = settings[name] ?? "";
    field.onchange = () => field.checkValidity() && change({ [name]: valueOf(field) });
  }
  return answered(dialog);
}

function valueOf(field) {
  if (field.value.trim() === "") return null;
  return field.type === "number" ? Number(field.value) : field.value;
}
