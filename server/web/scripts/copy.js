// A button that copies a text and says that it did.

import { say } from "./announcer.js";
import { icon, iconButton } from "./dom.js";

const SHOWN_MS = 1600;

/** `text()` is asked when the button is pressed. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    const done = await copied(text());
    say(done ? "Copied." : "The browser did not allow copying; select the text and copy it.");
    button.replaceChildren(icon(done ? "check" : "close"));
    setTimeout(() => button.replaceChildren(icon("copy")), SHOWN_MS);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // not allowed, or the page came over plain HTTP from another machine
  }
}
