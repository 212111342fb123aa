// Where Markdown holds TeX: $$…$$ and \[…\] stand apart, $…$ and \(…\) in the line.
// A dollar opens a formula only where no space follows, and closes one only where no space precedes
// and no digit follows: "$5 and $10" is money.

const BLOCK = /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])(?:\n+|$)/;
const DISPLAY_IN_LINE = /^(?:\$\$([^$]+?)\$\$|\\\[([\s\S]+?)\\\])/;
const IN_LINE = /^(?:\$(?!\s)((?:\\.|[^$\\\n])+?)(?<![\s\\])\$(?!\d)|\\\(([\s\S]+?)\\\))/;
const START = /\$|\\\(|\\\[/;

/** For marked. They write `<span class="formula [display]">TeX</span>`; formula.js typesets it. */
export const formulaExtensions = [
  {
    name: "formulaBlock",
    level: "block",
    start: (source) => source.match(/\$\$|\\\[/)?.index,
    tokenizer: (source) => token("formulaBlock", source.match(BLOCK)),
    renderer: ({ tex }) => `<p>${span(tex, "formula display")}</p>\n`,
  },
  {
    name: "formulaDisplay",
    level: "inline",
    start: (source) => source.match(START)?.index,
    tokenizer: (source) => token("formulaDisplay", source.match(DISPLAY_IN_LINE)),
    renderer: ({ tex }) => span(tex, "formula display"),
  },
  {
    name: "formula",
    level: "inline",
    start: (source) => source.match(START)?.index,
    tokenizer: (source) => token("formula", source.match(IN_LINE)),
    renderer: ({ tex }) => span(tex, "formula"),
  },
];

function token(type, match) {
  return match ? { type, raw: match[0], tex: (match[1] ?? match[2]).trim() } : undefined;
}

function span(tex, classes) {
  const text = tex.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  return `<span class="${classes}">${text}</span>`;
}
