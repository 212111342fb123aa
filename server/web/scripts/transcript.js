// The view of the conversation that is open: one view for each turn, kept while the turn stays.

import { AnswerReader } from "./announcer.js";
import { AnswerView } from "./answer.js";
import { byId } from "./dom.js";
import { Follower } from "./follower.js";
import { QuestionView } from "./question.js";

export class Transcript {
  #chat;
  #root = byId("transcript");
  #views = new Map();
  #readers = new WeakMap();
  #follower = new Follower(byId("scroller"), byId("to-latest"));

  constructor(chat) {
    this.#chat = chat;
    chat.addEventListener("opened", () => this.#opened());
    chat.addEventListener("turns", () => this.#turns());
    chat.addEventListener("text", (event) => this.#grew(event.detail.answer));
    chat.addEventListener("busy", (event) => this.#ended(event.detail.answer));
    this.#opened();
  }

  /** Edit the last question, if no answer is being written. */
  editLast() {
    const last = this.#chat.current.turns.findLast((turn) => turn.role === "user");
    if (last && !this.#chat.isBusy()) this.#views.get(last).edit();
  }

  /** Show or hide who wrote the last answer. */
  toggleLastTrace() {
    const last = this.#chat.current.turns.at(-1);
    if (last?.role === "assistant") this.#views.get(last).toggleTrace();
  }

  #opened() {
    this.#views.clear();
    this.#root.replaceChildren();
    this.#draw();
    this.#follower.toEnd();
  }

  #turns() {
    this.#draw();
    this.#follower.toEnd();
  }

  #draw() {
    const { turns } = this.#chat.current;
    for (const [turn, view] of this.#views) {
      if (turns.includes(turn)) continue;
      view.element.remove();
      this.#views.delete(turn);
    }
    for (const turn of turns) {
      if (this.#views.has(turn)) continue;
      const view = this.#viewOf(turn);
      this.#views.set(turn, view);
      this.#root.append(view.element);
    }
    this.#markLast();
    byId("welcome").hidden = turns.length > 0;
  }

  #viewOf(turn) {
    if (turn.role === "assistant") return this.#answerView(turn);
    const { turns } = this.#chat.current;
    return new QuestionView(turn, (text) => this.#chat.edit(turns.indexOf(turn), text));
  }

  #answerView(turn) {
    return new AnswerView(turn, () => this.#chat.regenerate(), () => this.#chat.changeKey());
  }

  #grew(answer) {
    const view = this.#views.get(answer);
    if (!view) return;
    if (answer.state === "streaming") {
      view.grew();
      this.#reader(answer).grew(answer.text);
    } else {
      view.finish(true);
    }
    this.#follower.grew();
  }

  #ended(answer) {
    this.#markLast();
    if (!answer || answer.state === "streaming") return;
    if (this.#views.has(answer) || answer.error) this.#reader(answer).ended(answer);
  }

  #reader(answer) {
    if (!this.#readers.has(answer)) this.#readers.set(answer, new AnswerReader());
    return this.#readers.get(answer);
  }

  #markLast() {
    const busy = this.#chat.isBusy();
    const last = busy ? null : this.#chat.current.turns.at(-1);
    this.#root.classList.toggle("busy", busy); // no question can be changed meanwhile
    for (const [turn, view] of this.#views) view.setLast?.(turn === last);
  }
}
