// The experts as the server tells of them, asked for again and again while the page can be seen.

import { stateOf } from "./state.js";

const POLL_MS = 2000;

/** Events: "changed" after each answer, "moved" (detail: expert) for a new state, "failed" (detail: error). */
export class Experts extends EventTarget {
  #admin;
  #loading = null;
  #timer = 0;
  list = [];
  meta = null;

  constructor(admin) {
    super();
    this.#admin = admin;
    document.addEventListener("visibilitychange", () => document.hidden || this.load());
  }

  byName(name) {
    return this.list.find((expert) => expert.name === name);
  }

  /** Ask now, and from then on every two seconds. `ask`: the person for a key, if need be. */
  load(ask = false) {
    this.#loading ??= this.#load(ask).finally(() => {
      this.#loading = null;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => document.hidden || this.load(), POLL_MS);
    });
    return this.#loading;
  }

  /** Ask, and be sure that the answer is younger than this call. */
  async refresh() {
    await this.#loading;
    await this.load();
  }

  async #load(ask) {
    try {
      const { data, meta } = await this.#admin.list(ask);
      const before = this.meta ? new Map(this.list.map((expert) => [expert.name, expert])) : null;
      Object.assign(this, { list: data, meta });
      this.dispatchEvent(new Event("changed"));
      if (before) this.#tellMoves(before);
    } catch (error) {
      this.dispatchEvent(new CustomEvent("failed", { detail: error }));
    }
  }

  #tellMoves(before) {
    for (const expert of this.list) {
      const then = before.get(expert.name);
      if (then && stateOf(then).kind === stateOf(expert).kind) continue;
      this.dispatchEvent(new CustomEvent("moved", { detail: expert }));
    }
  }
}
