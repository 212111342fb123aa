// The view of one answer: its text, how it ended, and on demand who wrote what.

import { Blocks } from "./blocks.js";
import { copyButton } from "./copy.js";
import { el, icon, iconButton } from "./dom.js";
import { partsOf, tintsOf } from "./parts.js";
import { tint } from "./tint.js";
import { tracePanel } from "./trace.js";

let views = 0;

export class AnswerView {
  #answer;
  #regenerate;
  #changeKey;
  #text = el("div.prose");
  #blocks = new Blocks(this.#text);
  #foot = el("div.answer-foot");
  #panel = null;
  #toggle = null;
  #frame = 0;
  #id = `trace-${(views += 1)}`;

  /** `regenerate()` is called when the person wants another answer, `changeKey()` for another key. */
  constructor(answer, regenerate, changeKey) {
    this.#answer = answer;
    this.#regenerate = regenerate;
    this.#changeKey = changeKey;
    this.element = el("article.turn.answer", { "aria-label": "Answer" }, this.#text, this.#foot);
    if (answer.state === "streaming") this.#showText();
    else this.finish(false);
  }

  /** The answer grew. Drawn at most once a frame. */
  grew() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.#answer.state === "streaming") this.#showText();
    });
  }

  /** The answer is over. `last`: it is the conversation's last, and can be written again. */
  finish(last) {
    this.#hideTrace();
    this.#blocks.show(this.#answer.text, { anew: true });
    this.element.classList.remove("waiting");
    this.element.removeAttribute("aria-busy");
    this.#foot.replaceChildren(...this.#notices(), this.#actions());
    this.setLast(last);
  }

  /** Whether the button for another answer is there. */
  setLast(last) {
    for (const button of this.#foot.querySelectorAll("[data-again]")) button.hidden = !last;
  }

  /** Show who wrote what, or hide it again. */
  toggleTrace() {
    if (this.#answer.state === "streaming") return;
    if (this.#panel) this.#hideTrace();
    else this.#showTrace();
  }

  #showText() {
    this.#blocks.show(this.#answer.text);
    this.element.setAttribute("aria-busy", "true");
    this.element.classList.toggle("waiting", !this.#answer.text);
  }

  #notices() {
    const { state, error, refused, note, finish, text } = this.#answer;
    const button = (name, onclick) => el("button.text-button", { type: "button", "data-again": true, onclick }, name);
    const again = () => button("Try again", this.#regenerate);
    if (note) return [el("p.notice.error", {}, `No other answer came. ${note}`, " ", again())];
    if (state === "failed" && refused) {
      return [el("p.notice.error", {}, error, " ", again(), " ", button("Use another key", this.#changeKey))];
    }
    if (state === "failed") return [el("p.notice.error", {}, error, " ", again())];
    if (state === "stopped") return [el("p.notice", {}, text ? "Stopped." : "Stopped before the first word.")];
    if (finish === "length") {
      return [el("p.notice", {}, "The longest answer allowed was reached. Raise it in the settings of this chat.")];
    }
    return text ? [] : [el("p.notice", {}, "The model answered with nothing.")];
  }

  #actions() {
    this.#toggle = el(
      "button.text-button.who",
      { type: "button", "aria-expanded": "false", onclick: () => this.toggleTrace() },
      icon("parts"),
      "Who wrote this",
    );
    return el(
      "div.actions",
      {},
      copyButton("Copy answer", () => this.#answer.text),
      iconButton("again", "Answer again", this.#regenerate, { "data-again": true }),
      this.#toggle,
    );
  }

  #showTrace() {
    const parts = partsOf(this.#answer);
    this.#panel = tracePanel(this.#answer, this.#id);
    this.#foot.append(this.#panel);
    this.#toggle.setAttribute("aria-expanded", "true");
    this.#toggle.setAttribute("aria-controls", this.#id);
    if (parts.length) tint(this.#text, this.#answer.text, parts, tintsOf(parts));
  }

  #hideTrace() {
    if (!this.#panel) return;
    this.#panel.remove();
    this.#panel = null;
    this.#toggle.setAttribute("aria-expanded", "false");
    this.#toggle.removeAttribute("aria-controls");
    this.#blocks.show(this.#answer.text, { anew: true });
  }
}
