// Speaks to screen readers: short notices at once, a growing answer sentence by sentence. The visible
// answer itself is no live region: it is drawn anew while it grows, and would be read again and again.

import { byId, el } from "./dom.js";
import { plain } from "./format.js";

const KEPT = 20;
const SENTENCES = /^[\s\S]*[.!?:\n](?=\s)/;

/** Have `text` read when the reader is free. While a dialog is open nothing outside it is read. */
export function say(text) {
  if (!text.trim()) return;
  const region = document.querySelector("dialog[open] .announcer") ?? byId("announcer");
  region.append(el("p", {}, text.trim()));
  while (region.childElementCount > KEPT) region.firstElementChild.remove();
}

/** Reads one answer as it grows. */
export class AnswerReader {
  #read = 0;

  /** Read the sentences that are complete by now. */
  grew(text) {
    const ready = text.slice(this.#read).match(SENTENCES);
    if (ready) this.#say(ready[0]);
  }

  /** Read what is left, then how it ended. */
  ended(answer) {
    this.#say(answer.text.slice(this.#read));
    say({ stopped: "Stopped.", failed: answer.error ?? "" }[answer.state] ?? "End of answer.");
  }

  #say(text) {
    this.#read += text.length;
    say(plain(text));
  }
}
