// What code blocks and tables get beyond Markdown: a bar with a copy button, and scrolling by keyboard.

import { copyButton } from "./copy.js";
import { el } from "./dom.js";

/** Dress the code blocks and tables of `root`. */
export function dress(root) {
  for (const pre of root.querySelectorAll("pre")) dressCode(pre);
  for (const table of root.querySelectorAll("table")) {
    const frame = el("div.wide", { tabindex: 0, role: "group", "aria-label": "Table" });
    table.replaceWith(frame);
    frame.append(table);
  }
}

function dressCode(pre) {
  const code = pre.querySelector("code");
  const language = code?.className.match(/language-(\S+)/)?.[1] ?? "";
  const label = language ? `Code, ${language}` : "Code";
  const text = pre.textContent; // now: a shown trace writes names in between
  const button = copyButton("Copy code", () => text);
  const bar = el("div.code-bar", { "data-apart": true }, el("span", {}, language), button);
  const frame = el("div.code", { role: "group", "aria-label": label });
  pre.replaceWith(frame);
  pre.tabIndex = 0;
  frame.append(bar, pre);
}
