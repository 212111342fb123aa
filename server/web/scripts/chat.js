// Owns the conversations: the only module that changes one. Views listen to its events:
// "opened" (another conversation is shown), "turns" (turns came or went), "text" (an answer grew),
// "list" (names or order changed), "busy" (an answer began or ended), "full" (nothing can be stored).

import { ask, askAgain, askInstead, continued, newConversation, requestBody } from "./conversation.js";
import { write } from "./writing.js";

const SAVE_EVERY_MS = 1000;

export class Chat extends EventTarget {
  #store;
  #api;
  #conversations;
  #running = new Map();
  #saved = 0;

  constructor(store, api) {
    super();
    this.#store = store;
    this.#api = api;
    this.#conversations = store.all();
    this.current = newConversation(this.#conversations[0]?.settings);
  }

  /** Conversations that hold something, the latest first. */
  get conversations() {
    return this.#conversations;
  }

  /** Whether an answer of this conversation is being written. */
  isBusy(id = this.current.id) {
    return this.#running.has(id);
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
    if (this.current.id === id) {
      this.current = newConversation(this.current.settings);
      this.#emit("opened");
    }
    this.#emit("list");
  }

  /** Read what another tab has stored; what is being written here stays as it is. */
  refresh() {
    const here = new Map(this.#conversations.map((one) => [one.id, one]));
    const kept = (one) => this.isBusy(one.id) || same(one, here.get(one.id));
    const stored = this.#store.all();
    this.#conversations = stored.map((one) => (here.has(one.id) && kept(one) ? here.get(one.id) : one));
    const open = this.#conversations.find(({ id }) => id === this.current.id);
    if (open && open !== this.current) {
      this.current = open;
      this.#emit("turns");
    }
    this.#emit("list");
  }

  // ------------------------------------------------------------ questions and answers

  send(text) {
    if (!text.trim() || this.isBusy()) return false;
    this.#write(ask(this.current, text.trim()));
    return true;
  }

  regenerate() {
    if (this.isBusy() || !this.current.turns.length) return;
    this.#write(askAgain(this.current));
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
      this.#save(this.#conversations.find((conversation) => conversation.id === id));
    }
  }

  // ------------------------------------------------------------ writing

  async #write(answer) {
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
    await write(answer, chunks, abort.signal, grew);
    this.#running.delete(conversation.id);
    if (this.#conversations.includes(conversation)) this.#save(conversation);
    this.#emit("text", { answer });
    this.#emit("busy", { answer });
  }

  #toTop(conversation) {
    const others = this.#conversations.filter((one) => one !== conversation);
    this.#conversations = [conversation, ...others];
  }

  #save(conversation) {
    this.#saved = Date.now();
    try {
      this.#store.save(conversation);
    } catch {
      this.#emit("full");
    }
  }

  #emit(name, detail = {}) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}
