// Markdown to DOM nodes, in two lines of defence: marked writes no HTML that a model chose (beyond
// a few bare tags), and DOMPurify lets through only what is listed here. The page's
// Content-Security-Policy is the third.

import { Marked } from "../vendor/marked.esm.js";
import "../vendor/purify.min.js";
import { formulaExtensions } from "./formula_syntax.js";

const BARE_TAG = /^<\/?(?:br|sub|sup|kbd|b|i|u|em|strong|small|mark)\s*\/?>$/i;
const CLASS = /^(?:language-[\w+#.-]+|formula|formula display)$/;
const SHIFT = 1; // an answer's first-level heading stands below the page's own

const PURIFY = {
  ALLOWED_TAGS: [
    ..."p br hr h2 h3 h4 h5 h6 em strong del b i u small mark sub sup kbd code pre span a".split(" "),
    ..."blockquote ul ol li table thead tbody tr th td".split(" "),
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align", "class"],
  ADD_URI_SAFE_ATTR: ["start", "align"], // their values are no addresses
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const purify = globalThis.DOMPurify;
purify.addHook("uponSanitizeAttribute", (_node, attribute) => {
  if (attribute.attrName === "class") attribute.keepAttr = CLASS.test(attribute.attrValue);
});
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

const marked = new Marked({
  gfm: true,
  breaks: true, // models end lines where they mean it
  extensions: formulaExtensions,
  renderer: {
    html({ text, block }) {
      if (BARE_TAG.test(text.trim())) return text;
      return block ? `<p>${escape(text.trim())}</p>\n` : escape(text);
    },
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    heading({ tokens, depth }) {
      const level = Math.min(depth + SHIFT, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
    },
  },
});

/** The blocks of a Markdown text, each with its source as `raw`. */
export function blocksOf(text) {
  return marked.lexer(text).filter((token) => token.type !== "space");
}

/** One block as a DocumentFragment that is safe to show. */
export function nodesOf(block) {
  return purify.sanitize(marked.parser([block]), PURIFY);
}

function escape(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return String(text).replace(/[&<>"']/g, (character) => entities[character]);
}
