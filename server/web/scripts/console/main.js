// Puts the console together.

import { say } from "../announcer.js";
import { Api } from "../api.js";
import { askKey } from "../dialogs.js";
import { byId, el } from "../dom.js";
import { themeSwitch } from "../theme_switch.js";
import { AddDialog } from "./add.js";
import { Admin } from "./admin.js";
import { Confusion } from "./confusion.js";
import { ExpertDialog } from "./detail.js";
import { Experts } from "./experts.js";
import { told } from "./faults.js";
import { RefitDialog } from "./refit.js";
import { stateOf } from "./state.js";
import { showSummary } from "./summary.js";
import { ExpertTable } from "./table.js";
import { TryPanel } from "./try.js";

const MAY_NOT = [401, 403];

const api = new Api(askKey);
const admin = new Admin(api);
const experts = new Experts(admin);
const detail = new ExpertDialog(admin, experts);
const refit = new RefitDialog(admin, experts, (text, isError) =>
  isError ? warn(`The refit failed: ${text}`, dismissal()) : say(`The refit has ended. ${text}`),
);
const add = new AddDialog(admin, experts, (name, reason) => warn(`${name} was not registered: ${reason}`, dismissal()));
const table = new ExpertTable((name) => detail.open(name));
const confusion = new Confusion();
new TryPanel(admin);
themeSwitch(byId("theme"));
byId("open-add").addEventListener("click", () => add.open());
byId("open-refit").addEventListener("click", () => refit.open());

let troubled = false;

experts.addEventListener("changed", () => {
  if (troubled) byId("trouble").hidden = true;
  troubled = false;
  showSummary(experts.meta);
  table.show(experts);
  confusion.show(experts.list);
});

experts.addEventListener("moved", ({ detail: expert }) => say(`${expert.name}: ${stateOf(expert).kind}`));

experts.addEventListener("failed", ({ detail: error }) => {
  if (troubled && byId("trouble").dataset.fault === error.message) return; // it is read out once
  troubled = true;
  warn(told(error), MAY_NOT.includes(error.status) ? keyButton() : null);
  byId("trouble").dataset.fault = error.message;
});

function warn(text, button) {
  byId("trouble").replaceChildren(text, " ", button ?? "");
  byId("trouble").hidden = false;
}

function keyButton() {
  const change = async () => (await api.changeKey()) && experts.load();
  return el("button.text-button", { type: "button", onclick: change }, "Use another key");
}

function dismissal() {
  const hide = () => (byId("trouble").hidden = true);
  return el("button.text-button", { type: "button", onclick: hide }, "Dismiss");
}

experts.load(true);
