// A query tried: how likely each expert is to be called, now and when it was tried before.

import { say } from "../announcer.js";
import { byId, el } from "../dom.js";
import { percent } from "../format.js";
import { partsOf } from "../parts.js";
import { told } from "./faults.js";

const EXCERPT = 160;

export class TryPanel {
  #admin;
  #before = new Map(); // of each query the chances that were found last

  constructor(admin) {
    this.#admin = admin;
    byId("try").addEventListener("submit", (event) => this.#try(event));
  }

  async #try(event) {
    event.preventDefault();
    const query = byId("query").value.trim();
    const button = byId("try").querySelector("button");
    const place = byId("tried");
    button.disabled = true;
    place.setAttribute("aria-busy", "true");
    try {
      const answer = await this.#admin.tried(query);
      const parts = partsOf(answer);
      const chances = parts.find((part) => Object.keys(part.chances).length)?.chances ?? {};
      place.replaceChildren(...result(answer.text, parts, chances, this.#before.get(query)));
      this.#before.set(query, chances);
      say(place.firstChild.textContent);
    } catch (error) {
      place.replaceChildren(el("p.notice.error", { role: "alert" }, told(error)));
    } finally {
      button.disabled = false;
      place.removeAttribute("aria-busy");
      place.hidden = false;
    }
  }
}

function result(text, parts, chances, before) {
  const names = Object.keys(chances).sort((a, b) => chances[b] - chances[a]);
  const gone = Object.keys(before ?? {}).filter((name) => !(name in chances));
  const rows = [...names, ...gone].map((name) => bar(name, chances[name], before?.[name], before !== undefined));
  const list = rows.length
    ? el("ul.chances", { "aria-label": "How likely each expert is to be called" }, ...rows)
    : el("p.hint", {}, "No expert could be called.");
  return [el("p", {}, ...verdict(parts)), list, el("p.excerpt", {}, excerpt(text))];
}

/** Who writes the answer, from its beginning as far as it was tried. */
function verdict(parts) {
  const written = parts.filter((part) => part.end > part.start).map((part) => part.model);
  const [first, ...others] = written.filter((model, place) => model !== written[place - 1]);
  if (!first) return ["Nothing was written."];
  const name = (model) => (model === "meta" ? "the meta LLM" : model);
  const who = el("strong", {}, first === "meta" ? "The meta LLM" : first);
  return others.length ? [who, ` begins, then ${others.map(name).join(", then ")}.`] : [who, " answers."];
}

/** The bar is the chance now, the mark on it the one before. */
function bar(name, chance, before, tried) {
  const track = el("span.track", { "aria-hidden": "true" }, el("span.fill"));
  track.firstChild.style.width = `${100 * (chance ?? 0)}%`;
  if (before !== undefined) {
    const mark = el("span.mark-before");
    mark.style.left = `${100 * before}%`;
    track.append(mark);
  }
  const change = tried && el("span.more", {}, before === undefined ? "new" : `before ${percent(before)}`);
  return el("li", {}, el("span.chance-name", {}, name), track, el("span.chance-value", {}, percent(chance)), change);
}

function excerpt(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > EXCERPT ? `${line.slice(0, EXCERPT).trimEnd()}…` : line;
}
