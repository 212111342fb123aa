// The server in four figures.

import { byId, el } from "../dom.js";
import { duration, percent } from "../format.js";
import { stateView } from "./state.js";

/** Show them; `meta` as the API tells of the meta LLM. */
export function showSummary(meta) {
  const { routed, traffic } = meta;
  const figures = [
    ["Meta LLM", stateView(meta)],
    ["Answers routed", [routed.toLocaleString("en"), el("span.more", {}, `since ${since(meta.since)}`)]],
    ["Handed over", [percent(share(traffic, meta))]],
    ["First token", [medianOf(traffic), el("span.more", {}, "median, meta LLM")]],
  ];
  const rows = figures.map(([name, shown]) => el("div", {}, el("dt", {}, name), el("dd", {}, ...shown.filter(Boolean))));
  byId("summary").replaceChildren(...rows);
}

/** Handoffs of the answers that were routed; null before the first one. */
export function share(traffic, { routed }) {
  return routed && traffic ? Math.min(1, traffic.handoffs / routed) : null;
}

/** "85 ms"; a dash where it is not known. */
export function medianOf(traffic) {
  return traffic?.first_token_ms == null ? "–" : duration(traffic.first_token_ms);
}

function since(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return today
    ? date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
}
