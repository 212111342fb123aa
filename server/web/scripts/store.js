// Keeps conversations in the browser, one entry each, so that two tabs do not overwrite each other's.

import { revived } from "./conversation.js";

const PREFIX = "trivium.conversation.";

export class Store {
  #storage;

  /** `storage`: localStorage, or anything like it. */
  constructor(storage) {
    this.#storage = storage;
  }

  /** Whether a change of this key of the storage (null: of all) is one of a conversation. */
  static keeps(key) {
    return key === null || key.startsWith(PREFIX);
  }

  /** Every conversation, the latest first. An entry that cannot be read is passed over. */
  all() {
    const keys = Object.keys(this.#storage).filter((key) => key.startsWith(PREFIX));
    const found = keys.map((key) => this.#read(key)).filter(Boolean);
    return found.sort((a, b) => b.updated - a.updated);
  }

  /** Raises QuotaExceededError where the browser's storage is full. */
  save(conversation) {
    this.#storage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
  }

  remove(id) {
    this.#storage.removeItem(PREFIX + id);
  }

  #read(key) {
    try {
      const conversation = JSON.parse(this.#storage.getItem(key));
      return Array.isArray(conversation?.turns) ? revived(conversation) : null;
    } catch {
      return null;
    }
  }
}
