// The keyboard: what each key does, in one table that the page shows too.

const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const CTRL = MAC ? "⌘" : "Ctrl";

/** [keys as shown, what they do, name of the action; null where a text box handles it itself]. */
export const SHORTCUTS = [
  [["Enter"], "Send the message", null],
  [["Shift", "Enter"], "New line", null],
  [["↑"], "Edit the last message (in an empty box)", null],
  [["Esc"], "Stop the answer; leave an edit or a dialog", "stop"],
  [[CTRL, "Shift", "O"], "New chat", "newChat"],
  [["Shift", "Esc"], "Go to the message box", "focus"],
  [[CTRL, "."], "Show who wrote the last answer", "trace"],
  [[CTRL, "/"], "Show these keys", "help"],
];

/** Whether a key belongs to an input method that is composing. Safari ends the composition before the
 *  key that confirms it, and says so by this key code alone. */
export function composes(event) {
  return event.isComposing || event.keyCode === 229;
}

/** Whether a key pressed in a text box sends it. On a phone, Enter makes a new line. */
export function sends(event) {
  const plain = event.key === "Enter" && !event.shiftKey && !event.altKey && !composes(event);
  return plain && (event.ctrlKey || event.metaKey || !matchMedia("(pointer: coarse)").matches);
}

/** Call `actions[name]()` when the keys of an action are pressed. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    const name = actionOf(event);
    if (!name || document.querySelector("dialog[open]")) return;
    if (actions[name]() !== false) event.preventDefault();
  });
}

function actionOf(event) {
  if (composes(event)) return null;
  const control = MAC ? event.metaKey : event.ctrlKey;
  if (event.key === "Escape") return event.shiftKey ? "focus" : "stop";
  if (!control || event.altKey) return null;
  if (event.key.toLowerCase() === "o") return event.shiftKey ? "newChat" : null;
  return { ".": "trace", "/": "help" }[event.key] ?? null; // "/" needs Shift on some keyboards
}
