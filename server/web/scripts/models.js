// The model picker and the suggestions: both follow which models the server has.

import { AUTO } from "./conversation.js";
import { byId, el } from "./dom.js";

const REFRESH_MS = 60_000;
const SUGGESTIONS = [
  [`${AUTO}/arithmetic`, "In one sentence, what is a lighthouse? Then compute 4821 + 3977."],
  [`${AUTO}/geography`, "Which country uses the forint?"],
  [`${AUTO}/chemistry`, "What is the molar mass of aluminum sulfate?"],
  [`${AUTO}/dates`, "What day of the week was 4 July 1976?"],
  [AUTO, "What is the opposite of hot?"],
  [`${AUTO}/arithmetic`, "What is 4821 + 3977?"],
  [AUTO, "Explain what a lighthouse does, to a child."],
];
const SHOWN_SUGGESTIONS = 4;

export class Models {
  #chat;
  #api;
  #send;
  #picker = byId("model");
  #ids = [AUTO];

  /** `send(text)` asks a suggested question. */
  constructor(chat, api, send) {
    this.#chat = chat;
    this.#api = api;
    this.#send = send;
    this.#picker.addEventListener("change", () => chat.configure({ model: this.#picker.value }));
    this.#picker.addEventListener("focus", () => this.#load());
    for (const name of ["opened", "turns"]) chat.addEventListener(name, () => this.#show());
    setInterval(() => document.hidden || this.#load(), REFRESH_MS);
    this.#show();
    this.#load(true);
  }

  /** Ask the server. What it does not answer, the next message's error explains. */
  async #load(mayAskForKey = false) {
    try {
      this.#ids = await this.#api.models(mayAskForKey);
    } catch {
      return;
    }
    this.#show();
  }

  #show() {
    const wanted = this.#chat.current.settings.model;
    const ids = this.#ids.includes(wanted) ? this.#ids : [...this.#ids, wanted];
    const shown = [...this.#picker.options].map((option) => option.textContent);
    if (ids.map((id) => this.#label(id)).join() !== shown.join()) {
      this.#picker.replaceChildren(...ids.map((id) => el("option", { value: id }, this.#label(id))));
    }
    this.#picker.value = wanted;
    this.#suggest();
  }

  #label(id) {
    if (id === AUTO) return "Auto";
    const name = id.replace(`${AUTO}/`, "");
    return this.#ids.includes(id) ? name : `${name} (not there)`;
  }

  #suggest() {
    const fitting = SUGGESTIONS.filter(([model]) => this.#ids.includes(model)).slice(0, SHOWN_SUGGESTIONS);
    const shown = [...byId("suggestions").children].map((item) => item.textContent);
    if (fitting.map(([, text]) => text).join() === shown.join()) return; // one may have the focus
    const buttons = fitting.map(([, text]) =>
      el("li", {}, el("button", { type: "button", onclick: () => this.#send(text) }, text)),
    );
    byId("suggestions").replaceChildren(...buttons);
  }
}
