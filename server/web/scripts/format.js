// Figures as people read them.

/** "412 ms", "1.94 s", "12.3 s". */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

/** 0.973 → "97.3 %"; a dash where it is not known. */
export function percent(probability) {
  if (probability == null) return "–";
  const value = probability * 100;
  return `${value > 99.9 && value < 100 ? ">99.9" : value.toFixed(1)} %`;
}

/** "0–93 ms", "0.09–1.94 s". */
export function span(fromMs, toMs) {
  if (toMs < 1000) return `${Math.round(fromMs)}–${Math.round(toMs)} ms`;
  const digits = toMs < 10_000 ? 2 : 1;
  return `${(fromMs / 1000).toFixed(digits)}–${(toMs / 1000).toFixed(digits)} s`;
}

/** A Markdown text without its marks, roughly: to be read out, or quoted in a line. */
export function plain(text) {
  return text.replace(/[*_`#|~]+/g, "");
}

/** "1 token", "23 tokens". */
export function count(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}
