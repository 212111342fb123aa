// The table of experts. A row stays the same element while its expert stays, so that it keeps the focus.

import { byId, el } from "../dom.js";
import { percent } from "../format.js";
import { stateView } from "./state.js";
import { medianOf, share } from "./summary.js";

export class ExpertTable {
  #body = byId("experts").tBodies[0];
  #rows = new Map();
  #open;

  /** `open(name)` is called when the person chooses an expert. */
  constructor(open) {
    this.#open = open;
  }

  show({ list, meta }) {
    const names = list.map((expert) => expert.name);
    for (const [name, row] of this.#rows) {
      if (names.includes(name)) continue;
      row.element.remove();
      this.#rows.delete(name);
    }
    for (const expert of list) this.#row(expert.name).show(expert, meta);
    byId("experts").hidden = !list.length;
    byId("no-experts").hidden = list.length > 0;
  }

  #row(name) {
    if (!this.#rows.has(name)) {
      const row = new Row(name, () => this.#open(name));
      this.#rows.set(name, row);
      this.#body.append(row.element);
    }
    return this.#rows.get(name);
  }
}

class Row {
  #description = el("span.more");
  #cells = ["td.state-cell", "td.number", "td.number.extra", "td.number.extra", "td.number.extra"].map((spec) => el(spec));
  #shown = "";

  constructor(name, open) {
    const button = el("button.expert-name", { type: "button", onclick: open }, name);
    this.element = el("tr", { "data-expert": name }, el("th", { scope: "row" }, button, this.#description), ...this.#cells);
  }

  show(expert, meta) {
    const { traffic, accuracy } = expert;
    const shown = JSON.stringify([expert, meta.routed]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#description.textContent = expert.description ?? "";
    const contents = [
      stateView(expert),
      [percent(share(traffic, meta)), traffic?.failures > 0 && el("span.more.bad", {}, `${traffic.failures} failed`)],
      [medianOf(traffic)],
      [percent(accuracy)],
      [thresholdOf(expert)],
    ];
    this.#cells.forEach((cell, place) => cell.replaceChildren(...contents[place].filter(Boolean)));
  }
}

/** "80 %", "as learned". */
export function thresholdOf({ threshold }) {
  return threshold == null ? "as learned" : `${Math.round(threshold * 100)} %`;
}
