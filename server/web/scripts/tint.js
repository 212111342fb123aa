// Tints a rendered answer by its writers. The trace counts characters of the Markdown source, the page
// shows text without the Markdown: each word that is shown is looked up in the source, in order.

import { el } from "./dom.js";
import { texOf } from "./formula.js";

const REACH = 2000; // how far ahead (UTF-16 units) a word may be: Markdown between two words is short
const APART = "[data-apart]";

/** Tint the text below `root`, made from `source`. `parts` and `tints` as in parts.js. */
export function tint(root, source, parts, tints) {
  const written = parts.filter((part) => part.end > part.start);
  const place = { at: 0, part: null };
  for (const leaf of leavesOf(root)) {
    const pieces = leaf.nodeType === Node.TEXT_NODE
      ? piecesOf(leaf.data, source, written, place)
      : [formulaPiece(leaf, source, written, place)];
    const blank = !leaf.textContent.trim();
    if (!blank) leaf.replaceWith(...pieces.flatMap((piece) => markup(piece, place, tints)));
  }
}

function leavesOf(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT, {
    acceptNode(node) {
      if (node.nodeType === Node.TEXT_NODE) return NodeFilter.FILTER_ACCEPT;
      if (node.matches(APART) || node.parentElement.closest(".formula")) return NodeFilter.FILTER_REJECT;
      return node.matches(".formula") ? NodeFilter.FILTER_ACCEPT : NodeFilter.FILTER_SKIP;
    },
  });
  const leaves = [];
  while (walker.nextNode()) leaves.push(walker.currentNode);
  return leaves.filter((leaf) => !leaf.parentElement.closest(".formula"));
}

/** A text in pieces of one writer each: [{ part, content }]. Moves `place.at` along the source. */
function piecesOf(text, source, parts, place) {
  const pieces = [];
  for (const [word] of text.matchAll(/\s*\S+|\s+$/g)) {
    const shown = word.trimStart();
    const found = shown ? source.indexOf(shown, place.at) : -1;
    const near = found >= 0 && found - place.at < REACH;
    const start = near ? found : place.at;
    if (near) place.at = found + shown.length;
    const space = word.slice(0, word.length - shown.length);
    const cuts = near ? cutWord(shown, start, parts) : [{ part: partAt(parts, start), content: shown }];
    cuts[0].content = space + cuts[0].content;
    for (const cut of cuts) join(pieces, cut);
  }
  return pieces;
}

function cutWord(word, start, parts) {
  const cuts = [];
  for (let i = 0; i < word.length; i += 1) {
    join(cuts, { part: partAt(parts, start + i), content: word[i] });
  }
  return cuts;
}

function join(pieces, { part, content }) {
  const last = pieces.at(-1);
  if (last && last.part === part) last.content += content;
  else pieces.push({ part, content });
}

/** Null before the first part: who wrote what came before a connection broke is not told. */
function partAt(parts, at) {
  if (at < (parts[0]?.start ?? 0)) return null;
  return parts.find((part) => at < part.end) ?? parts.at(-1) ?? null;
}

function formulaPiece(node, source, parts, place) {
  const tex = texOf(node);
  const found = source.indexOf(tex, place.at);
  const start = found < 0 ? place.at : found;
  if (found >= 0) place.at = found + tex.length;
  return { part: partAt(parts, start), content: node.cloneNode(true) };
}

/** The nodes of one piece; the first of a part is preceded by its writer's name. */
function markup({ part, content }, place, tints) {
  if (!part) return [content];
  const shade = { "data-tint": tints.get(part.model) };
  const piece = el("span.part", shade, content);
  if (place.part === part) return [piece];
  place.part = part;
  return [el("span.part-name", { ...shade, "data-apart": true }, part.model), piece];
}
