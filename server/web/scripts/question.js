// The view of one question: as it was sent, or in a box where it can be changed and sent again.

import { autosize } from "./autosize.js";
import { copyButton } from "./copy.js";
import { el, iconButton } from "./dom.js";
import { sends } from "./keys.js";

export class QuestionView {
  #turn;
  #edited;

  /** `edited(text)`: the question is to be asked again; returns whether that could be done. */
  constructor(turn, edited) {
    this.#turn = turn;
    this.#edited = edited;
    this.element = el("article.turn.question", { "aria-label": "You" });
    this.#show();
  }

  /** Put the question into a box. */
  edit() {
    const box = el("textarea", { rows: 1, "aria-label": "Edit your message" });
    box.value = this.#turn.text;
    const form = el(
      "form.edit",
      { onsubmit: (event) => this.#send(event, box), onkeydown: (event) => this.#key(event, form) },
      box,
      el(
        "div.dialog-row",
        {},
        el("span.hint.grow", {}, "What follows this message is replaced."),
        el("button", { type: "button", onclick: () => this.#show(true) }, "Cancel"),
        el("button.primary", { type: "submit" }, "Send"),
      ),
    );
    this.element.replaceChildren(form);
    autosize(box);
    box.focus();
  }

  #show(focus = false) {
    const pencil = iconButton("edit", "Edit this message", () => this.edit());
    const actions = el("div.actions", {}, copyButton("Copy message", () => this.#turn.text), pencil);
    this.element.replaceChildren(el("div.bubble", {}, this.#turn.text), actions);
    if (focus) pencil.focus();
  }

  #send(event, box) {
    event.preventDefault();
    this.#edited(box.value);
  }

  #key(event, form) {
    if (event.key === "Escape") {
      event.stopPropagation();
      this.#show(true);
    } else if (event.target.matches("textarea") && sends(event)) {
      event.preventDefault();
      form.requestSubmit();
    }
  }
}
