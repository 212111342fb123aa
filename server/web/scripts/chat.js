// Owns the conversations: the only module that changes one. Views listen to its events:
// "opened" (another conversation is shown), "turns" (turns came or went), "text" (an answer grew),
// "list" (names or order changed), "busy" (an answer began or ended), "full" (nothing can be stored),
// "stored" (all is stored again).

import {
  SILENT_MS,
  adopt,
  ask,
  askAgain,
  askInstead,
  continued,
  isElsewhere,
  keepAnswer,
  newConversation,
  requestBody,
} from "./conversation.js";
import { write } from "./writing.js";

const SAVE_EVERY_MS = 1000;
const SIGN_EVERY_MS = 2000; // while nothing comes: other tabs see that it is being written

export class Chat extends EventTarget {
  #store;
  #api;
  #conversations;
  #running = new Map();
  #unsaved = new Set();
  #saved = 0;
  #look = 0;

  constructor(store, api) {
    super();
    this.#store = store;
    this.#api = api;
    this.#conversations = store.all();
    this.current = newConversation(this.#conversations[0]?.settings);
    this.#lookAgain();
  }

  /** Conversations that hold something, the latest first. */
  get conversations() {
    return this.#conversations;
  }

  /** Whether an answer of this conversation is being written, here or in another tab. */
  isBusy(id = this.current.id) {
    if (this.#running.has(id)) return true;
    const conversation = this.#conversations.find((one) => one.id === id);
    return Boolean(conversation && isElsewhere(conversation));
  }

  /** Ask for another key, then for the last answer again. */
  async changeKey() {
    if (await this.#api.changeKey()) this.regenerate();
  }

  // ------------------------------------------------------------ which conversation

  /** Show a new one. It is stored with its first message. */
  create() {
    if (this.current.turns.length) this.current = newConversation(this.current.settings);
    this.#emit("opened");
  }

  /** Show the one with this id; false if there is none. */
  open(id) {
    const found = this.#conversations.find((conversation) => conversation.id === id);
    if (!found) return false;
    this.current = found;
    this.#emit("opened");
    return true;
  }

  rename(id, title) {
    const conversation = this.#conversations.find((one) => one.id === id);
    if (!title.trim() || !conversation) return;
    Object.assign(conversation, { title: title.trim(), named: true });
    this.#save(conversation);
    this.#emit("list");
  }

  remove(id) {
    this.#running.get(id)?.abort();
    this.#conversations = this.#conversations.filter((conversation) => conversation.id !== id);
    this.#store.remove(id);
    this.#unsaved.delete(id);
    for (const one of this.#conversations) if (this.#unsaved.has(one.id)) this.#save(one);
    if (this.current.id === id) {
      this.current = newConversation(this.current.settings);
      this.#emit("opened");
    }
    this.#emit("list");
  }

  /** Read what another tab has stored; what is being written here, or is not stored, stays as it is. */
  refresh() {
    const here = new Map(this.#conversations.map((one) => [one.id, one]));
    const mine = ({ id }) => this.#running.has(id) || this.#unsaved.has(id);
    const stored = this.#store.all().filter((one) => !mine(one));
    const before = this.current;
    const wasBusy = this.isBusy();
    let change = null;
    this.#conversations = [...this.#conversations.filter(mine), ...stored.map((one) => here.get(one.id) ?? one)];
    for (const one of stored) {
      const changed = here.has(one.id) ? adopt(here.get(one.id), one) : null;
      if (one.id === before.id) change = changed;
    }
    this.#conversations.sort((a, b) => b.updated - a.updated);
    if (change?.turns) this.#emit("turns");
    if (change?.grown) this.#emit("text", { answer: change.grown });
    if (this.isBusy() !== wasBusy) this.#emit("busy", { answer: change?.grown });
    this.#emit("list");
    this.#lookAgain();
  }

  /** Another tab that is closed says no more that it writes. */
  #lookAgain() {
    clearTimeout(this.#look);
    const elsewhere = this.#conversations.some((one) => !this.#running.has(one.id) && isElsewhere(one));
    if (elsewhere) this.#look = setTimeout(() => this.refresh(), SILENT_MS);
  }

  // ------------------------------------------------------------ questions and answers

  send(text) {
    if (!text.trim() || this.isBusy()) return false;
    this.#write(ask(this.current, text.trim()));
    return true;
  }

  regenerate() {
    if (this.isBusy() || !this.current.turns.length) return;
    const last = this.current.turns.at(-1);
    this.#write(askAgain(this.current), last.role === "assistant" && last.text ? last : null);
  }

  /** Ask `text` instead of the question at `index`; what followed it is dropped. */
  edit(index, text) {
    if (!text.trim() || this.isBusy()) return false;
    this.#write(askInstead(this.current, index, text.trim()));
    return true;
  }

  stop() {
    this.#running.get(this.current.id)?.abort();
  }

  /** Change settings of the current conversation. */
  configure(changes) {
    Object.assign(this.current.settings, changes);
    if (this.current.turns.length) this.#save(this.current);
  }

  /** Stop and store what is still being written; the page is closing. */
  keep() {
    for (const [id, abort] of this.#running) {
      abort.abort(); // otherwise the connection's end would look like a fault
      const conversation = this.#conversations.find((one) => one.id === id);
      conversation.turns.at(-1).state = "stopped";
      this.#save(conversation);
    }
  }

  // ------------------------------------------------------------ writing

  /** `before`: the answer that this one replaces, if it comes. */
  async #write(answer, before = null) {
    const conversation = this.current;
    const abort = new AbortController();
    this.#running.set(conversation.id, abort);
    this.#toTop(conversation);
    this.#save(conversation);
    for (const name of ["turns", "list", "busy"]) this.#emit(name);
    const body = requestBody(conversation);
    const grew = () => {
      this.#emit("text", { answer });
      if (Date.now() - this.#saved > SAVE_EVERY_MS) this.#save(conversation);
    };
    const chunks = (signal, written, tokens) =>
      this.#api.stream(continued(body, written, tokens), signal);
    const sign = setInterval(() => this.#save(conversation), SIGN_EVERY_MS);
    await write(answer, chunks, abort.signal, grew);
    clearInterval(sign);
    this.#running.delete(conversation.id);
    const instead = before && !answer.text && answer.state !== "done";
    if (instead) keepAnswer(conversation, before, answer.error ?? null);
    if (this.#conversations.includes(conversation)) this.#save(conversation);
    if (instead) this.#emit("turns");
    this.#emit("text", { answer: instead ? before : answer });
    this.#emit("busy", { answer });
  }

  #toTop(conversation) {
    const others = this.#conversations.filter((one) => one !== conversation);
    this.#conversations = [conversation, ...others];
  }

  #save(conversation) {
    this.#saved = Date.now();
    if (this.#running.has(conversation.id)) conversation.written = this.#saved;
    try {
      this.#store.save(conversation);
      if (this.#unsaved.delete(conversation.id) && !this.#unsaved.size) this.#emit("stored");
    } catch {
      this.#unsaved.add(conversation.id);
      this.#emit("full");
    }
  }

  #emit(name, detail = {}) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
