// Typesets formulas as MathML. The library is fetched with the first formula that appears.

let library = null;

/** Typeset every formula below `root`. TeX that cannot be read stays as it is written. */
export async function typeset(root) {
  const formulas = [...root.querySelectorAll(".formula:not([data-set])")];
  if (!formulas.length) return;
  library ??= import("../vendor/temml.min.js");
  const { default: temml } = await library;
  for (const node of formulas) set(temml, node);
}

/** The TeX that a formula was made from. */
export function texOf(node) {
  return node.tex ?? node.textContent;
}

function set(temml, node) {
  node.tex = texOf(node);
  node.dataset.set = "";
  const made = document.createElement("span");
  try {
    const displayMode = node.classList.contains("display");
    temml.render(node.tex, made, { displayMode, throwOnError: true, trust: false, maxExpand: 200 });
    node.replaceChildren(...made.childNodes);
    if (displayMode) node.tabIndex = 0; // a long one scrolls, by keyboard too
  } catch {
    node.dataset.set = "failed";
  }
}
