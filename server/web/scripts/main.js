// Puts the page together.

import { Api } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { askKey, showSettings, showShortcuts } from "./dialogs.js";
import { byId } from "./dom.js";
import { listen } from "./keys.js";
import { Models } from "./models.js";
import { Sidebar } from "./sidebar.js";
import { lasting, local } from "./storage.js";
import { Store } from "./store.js";
import { themeSwitch } from "./theme_switch.js";
import { Transcript } from "./transcript.js";

const api = new Api(askKey);
const chat = new Chat(new Store(local), api);
chat.open(location.hash.slice(1));

const transcript = new Transcript(chat);
const sidebar = new Sidebar(chat);
const composer = new Composer(chat, () => transcript.editLast());
new Models(chat, api, (text) => composer.send(text));
themeSwitch(byId("theme"));

byId("show-settings").addEventListener("click", () => {
  showSettings(chat.current.settings, (changes) => chat.configure(changes));
});
byId("show-shortcuts").addEventListener("click", showShortcuts);

listen({
  stop: () => sidebar.close() || (chat.isBusy() ? chat.stop() : false),
  newChat: () => chat.create(),
  focus: () => byId("message").focus(),
  trace: () => transcript.toggleLastTrace(),
  help: () => showShortcuts(),
});

// The address names the open conversation: a reload and the browser's back button keep to it.
addEventListener("hashchange", () => {
  const id = location.hash.slice(1);
  if (id !== chat.current.id && !chat.open(id) && !id) chat.create();
});
const nameInAddress = () => {
  const { id, turns } = chat.current;
  if (turns.length && location.hash.slice(1) !== id) history.pushState(null, "", `#${id}`);
  if (!turns.length && location.hash) history.pushState(null, "", location.pathname);
};
chat.addEventListener("opened", nameInAddress);
chat.addEventListener("turns", nameInAddress);

addEventListener("pagehide", () => chat.keep());
addEventListener("storage", ({ key }) => Store.keeps(key) && chat.refresh());
chat.addEventListener("full", () => (byId("storage-full").hidden = false));
chat.addEventListener("stored", () => (byId("storage-full").hidden = true));
byId("storage-blocked").hidden = lasting;
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the conversation
  byId("message").focus();
});
composer.focus();
