// The button that goes through the themes: as the system, light, dark.

import { icon } from "./dom.js";
import { local } from "./storage.js";

const KEY = "trivium.theme";
const THEMES = ["system", "light", "dark"];

/** Make `button` the switch; it says which theme is on. */
export function themeSwitch(button) {
  const root = document.documentElement;
  const show = (theme) => {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    const name = theme[0].toUpperCase() + theme.slice(1);
    button.replaceChildren(icon("theme"), ` ${name}`);
    button.setAttribute("aria-label", `${name} theme; press to change`);
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
    local.setItem(KEY, next);
    show(next);
  });
  show(root.dataset.theme ?? "system");
}
