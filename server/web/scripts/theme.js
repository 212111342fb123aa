// Sets the theme before the first paint. A classic script that stands in the page: modules run too
// late for that.
"use strict";

(() => {
  let choice = null;
  try {
    choice = localStorage.getItem("trivium.theme");
  } catch {
    // Storage is blocked: the system's theme it is.
  }
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
})();
