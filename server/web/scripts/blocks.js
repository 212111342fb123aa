// Shows a growing Markdown text. Blocks that did not change keep their nodes, so that a selection, a
// copy button's focus and typeset formulas survive the stream.

import { dress } from "./code.js";
import { el } from "./dom.js";
import { typeset } from "./formula.js";
import { blocksOf, nodesOf } from "./markdown.js";

export class Blocks {
  #root;
  #shown = [];

  constructor(root) {
    this.#root = root;
  }

  /** Show `text`. `anew`: draw every block again, e.g. because a link's target came later. */
  show(text, { anew = false } = {}) {
    const blocks = blocksOf(text);
    let same = 0;
    while (!anew && same < blocks.length && this.#shown[same] === blocks[same].raw) same += 1;
    while (this.#root.childElementCount > same) this.#root.lastElementChild.remove();
    for (const block of blocks.slice(same)) this.#root.append(drawn(block));
    this.#shown = blocks.map((block) => block.raw);
  }
}

function drawn(block) {
  const frame = el("div.block");
  frame.append(nodesOf(block));
  dress(frame);
  typeset(frame);
  return frame;
}
