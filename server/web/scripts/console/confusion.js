// The confusion matrix: a row for each expert's held-out examples, a column for where they went.

import { byId, el } from "../dom.js";

const META = "meta";

export class Confusion {
  #shown = "";

  show(experts) {
    const counted = experts.filter((expert) => expert.routes);
    const shown = JSON.stringify(counted.map(({ name, routes }) => [name, routes]));
    byId("confusion").hidden = !counted.length;
    if (shown === this.#shown) return;
    this.#shown = shown;
    const names = columns(counted);
    const head = el("tr", {}, el("td"), ...names.map((name) => el("th", { scope: "col" }, name === META ? "meta LLM" : name)));
    const rows = counted.map((expert) => row(expert, names));
    byId("confusion").querySelector("table").replaceChildren(el("thead", {}, head), el("tbody", {}, ...rows));
  }
}

/** Those that have a row, others that were reached, the meta LLM last. */
function columns(experts) {
  const reached = experts.flatMap((expert) => Object.keys(expert.routes));
  const names = new Set([...experts.map((expert) => expert.name), ...reached]);
  names.delete(META);
  return [...names, META];
}

function row({ name, routes }, names) {
  const all = Object.values(routes).reduce((sum, count) => sum + count, 0);
  const cells = names.map((column) => {
    const number = routes[column] ?? 0;
    const cell = el("td", { "data-right": column === name, "data-none": !number }, number ? String(number) : "·");
    cell.style.setProperty("--share", `${Math.round((100 * number) / all)}%`);
    return cell;
  });
  return el("tr", {}, el("th", { scope: "row" }, name), ...cells);
}
