// Text boxes as high as their text. The style sheet limits the height.

const KNOWN = CSS.supports("field-sizing", "content"); // then the style sheet does it

/** Keep the height of a <textarea> at that of its text. */
export function autosize(box) {
  if (KNOWN) return;
  const fit = () => {
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight}px`;
  };
  box.addEventListener("input", fit);
  fit();
}
