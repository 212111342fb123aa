// States of models: the word that the API begins with, and what it says besides.

import { el } from "../dom.js";

const GOOD = ["live"];
const BAD = ["failed", "failing"];
const OFF = ["disabled", "not started"];

/** { kind, more }: "failed" and the reason; "registering" and the step. */
export function stateOf({ state, registration }) {
  const [kind] = state.split(":", 1);
  const running = registration?.state === "running";
  return { kind, more: running ? registration.step : state.slice(kind.length + 1).trim() };
}

/** A dot, the word, and what there is to say besides. */
export function stateView(expert) {
  const { kind, more } = stateOf(expert);
  const mood = GOOD.includes(kind) ? "good" : BAD.includes(kind) ? "bad" : OFF.includes(kind) ? "off" : "busy";
  return [el("span.state", { "data-mood": mood }, kind), more && el("span.more", { title: more }, more)];
}
