// The message box: sends, and stops what is being written.

import { autosize } from "./autosize.js";
import { byId, icon } from "./dom.js";
import { sends } from "./keys.js";

export class Composer {
  #chat;
  #box = byId("message");
  #button = byId("send");

  /** `editLast()` is called for the arrow up in an empty box. */
  constructor(chat, editLast) {
    this.#chat = chat;
    autosize(this.#box);
    byId("composer").addEventListener("submit", (event) => this.#submit(event));
    this.#box.addEventListener("keydown", (event) => this.#key(event, editLast));
    for (const name of ["busy", "opened"]) chat.addEventListener(name, () => this.#show());
    chat.addEventListener("opened", () => this.focus());
  }

  /** To the box; on a phone not by itself, for the keyboard would cover half the page. */
  focus() {
    if (!matchMedia("(pointer: coarse)").matches) this.#box.focus();
  }

  /** Send `text` as if it had been typed. */
  send(text) {
    if (!this.#chat.send(text)) return;
    this.#box.value = "";
    this.#box.dispatchEvent(new Event("input"));
  }

  #submit(event) {
    event.preventDefault();
    if (this.#chat.isBusy()) this.#chat.stop();
    else this.send(this.#box.value);
  }

  #key(event, editLast) {
    if (sends(event)) {
      event.preventDefault();
      this.send(this.#box.value);
    } else if (event.key === "ArrowUp" && !this.#box.value) {
      event.preventDefault();
      editLast();
    }
  }

  #show() {
    const busy = this.#chat.isBusy();
    const label = busy ? "Stop" : "Send";
    this.#button.replaceChildren(icon(busy ? "stop" : "send"));
    this.#button.setAttribute("aria-label", label);
    this.#button.title = label;
    this.#button.classList.toggle("busy", busy);
  }
}
