// The list of conversations: open, rename, export, delete. On a narrow page it is a drawer.

import { confirmed } from "./dialogs.js";
import { exported } from "./conversation.js";
import { byId, el, iconButton } from "./dom.js";
import { composes } from "./keys.js";

export class Sidebar {
  #chat;
  #list = byId("conversations");
  #drawer = new Drawer();

  constructor(chat) {
    this.#chat = chat;
    for (const name of ["list", "opened", "busy"]) chat.addEventListener(name, () => this.#show());
    chat.addEventListener("opened", () => this.#drawer.close());
    this.#list.addEventListener("click", (event) => event.target.closest("a") && this.#drawer.close());
    for (const id of ["new-chat", "new-chat-narrow"]) {
      byId(id).addEventListener("click", () => chat.create());
    }
    this.#show();
  }

  /** Whether there was a drawer to close. */
  close() {
    return this.#drawer.close();
  }

  #show() {
    byId("title").textContent = this.#chat.current.title;
    document.title = this.#chat.current.turns.length ? `${this.#chat.current.title} · Trivium` : "Trivium";
    if (this.#list.querySelector("input")) return; // a name is being typed
    const row = document.activeElement?.closest("[data-id]");
    const tool = row ? [...row.querySelectorAll("a, button")].indexOf(document.activeElement) : -1;
    this.#list.replaceChildren(...this.#chat.conversations.map((one) => this.#row(one)));
    if (row) this.#rowOf(row.dataset.id)?.querySelectorAll("a, button")[tool]?.focus();
  }

  #row(conversation) {
    const { id, title } = conversation;
    const current = id === this.#chat.current.id;
    const busy = this.#chat.isBusy(id) && el("span.busy-dot", { role: "img", "aria-label": "being written" });
    const link = el("a", { href: `#${id}`, "aria-current": current ? "page" : null, title }, el("span", {}, title), busy);
    const row = el("li", { "data-id": id }, link);
    const tools = el(
      "div.row-tools",
      {},
      iconButton("edit", `Rename “${title}”`, () => this.#rename(row, conversation)),
      iconButton("export", `Export “${title}” as JSON`, () => download(conversation)),
      iconButton("delete", `Delete “${title}”`, () => this.#remove(conversation)),
    );
    row.append(tools);
    return row;
  }

  #rename(row, { id, title }) {
    const box = el("input.rename", { type: "text", "aria-label": "New name", maxlength: 200 });
    box.value = title;
    let over = false;
    const done = (keep) => {
      if (over) return; // taking the box away takes its focus away, which ends the edit again
      over = true;
      row.replaceChildren();
      if (keep) this.#chat.rename(id, box.value);
      this.#show();
      this.#list.querySelector(`[data-id="${CSS.escape(id)}"] a`)?.focus();
    };
    box.addEventListener("keydown", (event) => {
      if (composes(event)) return;
      if (event.key === "Enter") done(true);
      if (event.key !== "Escape") return;
      event.stopPropagation();
      done(false);
    });
    box.addEventListener("blur", () => done(true));
    row.replaceChildren(box);
    box.select();
  }

  #rowOf(id) {
    return this.#list.querySelector(`[data-id="${CSS.escape(id)}"]`);
  }

  async #remove({ id, title }) {
    const text = "It is kept in this browser only and cannot be brought back.";
    if (!(await confirmed(`Delete “${title}”?`, text))) return;
    const row = this.#rowOf(id);
    const next = (row?.nextElementSibling ?? row?.previousElementSibling)?.dataset.id;
    const shown = id === this.#chat.current.id; // then the message box has the focus
    this.#chat.remove(id);
    if (!shown && next) this.#rowOf(next)?.querySelector("a").focus();
  }
}

/** The narrow page's drawer: while it is open, the rest of the page cannot be reached. */
class Drawer {
  #opener = byId("open-sidebar");

  constructor() {
    this.#opener.addEventListener("click", () => this.#set(true));
    byId("close-sidebar").addEventListener("click", () => this.close());
    byId("shade").addEventListener("click", () => this.close());
    matchMedia("(min-width: 50rem)").addEventListener("change", () => this.close());
  }

  close() {
    const was = byId("sidebar").classList.contains("open");
    if (was) this.#set(false);
    return was;
  }

  #set(open) {
    byId("sidebar").classList.toggle("open", open);
    byId("shade").hidden = !open;
    byId("page").inert = open;
    this.#opener.setAttribute("aria-expanded", String(open));
    if (open) byId("close-sidebar").focus();
    else this.#opener.focus();
  }
}

function download(conversation) {
  const url = URL.createObjectURL(new Blob([exported(conversation)], { type: "application/json" }));
  const name = conversation.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "chat";
  el("a", { href: url, download: `${name}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
