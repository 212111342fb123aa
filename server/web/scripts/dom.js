// Builds elements. Text is always text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * `el("button.primary", { type: "button", onclick: send }, "Send")`. A property that begins with
 * "on" is a listener, `true` an empty attribute; null and false leave the attribute out.
 */
export function el(spec, properties = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(properties)) set(node, name, value);
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

function set(node, name, value) {
  if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
  else if (value === true) node.setAttribute(name, "");
  else if (value != null && value !== false) node.setAttribute(name, value);
}

/** One of the symbols of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows an icon and is read as `label`. */
export function iconButton(name, label, onclick, properties = {}) {
  const all = { type: "button", "aria-label": label, title: label, onclick, ...properties };
  return el("button.icon-button", all, icon(name));
}

/** The element of index.html with this id. */
export function byId(id) {
  return document.getElementById(id);
}
