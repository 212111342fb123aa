// The dialog that fits all experts together and shows what became of each.

import { byId, el } from "../dom.js";
import { percent } from "../format.js";
import { told } from "./faults.js";

export class RefitDialog {
  #dialog = byId("refit");
  #admin;
  #experts;
  #onEnded;

  /** `onEnded(text, isError)`: how it ended while nobody was watching. */
  constructor(admin, experts, onEnded) {
    this.#admin = admin;
    this.#experts = experts;
    this.#onEnded = onEnded;
    byId("start-refit").addEventListener("click", () => this.#refit());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog || event.target.closest("[data-close]")) this.#dialog.close();
    });
  }

  open() {
    this.#dialog.showModal();
  }

  async #refit() {
    byId("start-refit").disabled = true;
    this.#tell("Fitting. It goes on when this is closed.");
    try {
      const found = Object.entries(await this.#admin.refit());
      this.#end("Done: the new tokens are in use.");
      showTable(found);
    } catch (error) {
      this.#end(told(error), true);
    } finally {
      byId("start-refit").disabled = false;
      this.#experts.refresh();
    }
  }

  #end(text, isError = false) {
    this.#tell(text, isError);
    if (!this.#dialog.open) this.#onEnded(text, isError);
  }

  #tell(text, isError = false) {
    byId("refit-table").hidden = true;
    byId("refit-status").hidden = !text;
    byId("refit-status").textContent = text;
    byId("refit-status").classList.toggle("error", isError);
  }
}

function showTable(found) {
  const head = ["Expert", "Held-out before", "After"].map((name) => el("th", { scope: "col" }, name));
  const rows = found.map(([name, { before, after }]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td.number", {}, percent(before)), el("td.number", {}, percent(after))),
  );
  byId("refit-table").replaceChildren(el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  byId("refit-table").hidden = false;
}
