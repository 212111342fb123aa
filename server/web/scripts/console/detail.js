// The dialog of one expert: what is known of it, its threshold, on and off, and its end.

import { say } from "../announcer.js";
import { confirmed } from "../dialogs.js";
import { byId, el } from "../dom.js";
import { count, percent } from "../format.js";
import { show } from "./faults.js";
import { stateOf, stateView } from "./state.js";
import { medianOf, share } from "./summary.js";

const FIRST_THRESHOLD = 50; // percent, where the slider begins

export class ExpertDialog {
  #dialog = byId("expert");
  #admin;
  #experts;
  #name = null;
  #doing = Promise.resolve();

  constructor(admin, experts) {
    this.#admin = admin;
    this.#experts = experts;
    experts.addEventListener("changed", () => this.#dialog.open && this.#show());
    experts.addEventListener("changed", () => this.#dialog.open && this.#follow());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog || event.target.closest("[data-close]")) this.#dialog.close();
    });
    byId("enable").addEventListener("click", () => this.#enable());
    byId("remove").addEventListener("click", () => this.#remove());
    byId("as-learned").addEventListener("change", () => this.#setThreshold());
    byId("threshold").addEventListener("change", () => this.#setThreshold());
    byId("threshold").addEventListener("input", () => this.#showThreshold());
  }

  open(name) {
    this.#name = name;
    show(byId("expert-error"), null);
    this.#show();
    this.#takeThreshold();
    this.#dialog.showModal();
  }

  get #expert() {
    return this.#experts.byName(this.#name);
  }

  #show() {
    const expert = this.#expert;
    if (!expert) return this.#dialog.close(); // somebody removed it
    const registered = expert.slot !== null;
    byId("expert-title").textContent = expert.name;
    byId("expert-state").replaceChildren(...stateView(expert).filter(Boolean));
    byId("expert-description").textContent = expert.description ?? "";
    byId("expert-facts").replaceChildren(
      ...factsOf(expert, this.#experts.meta).map(([name, fact]) => el("div", {}, el("dt", {}, name), el("dd", {}, fact))),
    );
    byId("enable").textContent = isOff(expert) ? "Enable" : "Disable";
    for (const id of ["enable", "remove", "threshold-fields"]) byId(id).disabled = !registered;
  }

  /** Another person's threshold, unless this one is being set. */
  #follow() {
    if (!byId("threshold-fields").contains(document.activeElement)) this.#takeThreshold();
  }

  #takeThreshold() {
    const { threshold } = this.#expert;
    byId("as-learned").checked = threshold == null;
    byId("threshold").value = threshold == null ? FIRST_THRESHOLD : Math.round(threshold * 100);
    this.#showThreshold();
  }

  #showThreshold() {
    const learned = byId("as-learned").checked;
    byId("slider").hidden = learned;
    byId("threshold-shown").textContent = `${byId("threshold").value} %`;
  }

  async #setThreshold() {
    this.#showThreshold();
    const name = this.#name;
    const threshold = byId("as-learned").checked ? null : Number(byId("threshold").value) / 100;
    const done = await this.#do((expert) => this.#admin.change(expert, { threshold }));
    if (name !== this.#name || !this.#expert) return;
    if (!done) this.#takeThreshold();
    else say(threshold === null ? "The threshold is as learned." : `The threshold is ${byId("threshold").value} %.`);
  }

  #enable() {
    const enabled = isOff(this.#expert);
    return this.#do((expert) => this.#admin.change(expert, { enabled }), byId("enable"));
  }

  async #remove() {
    const name = this.#name;
    const text = "It is called no more. Answers that it is writing are finished first, then its worker ends.";
    if (!(await confirmed(`Remove ${name}?`, text))) return;
    if (!(await this.#do((expert) => this.#admin.remove(expert), byId("remove")))) return;
    if (name === this.#name) this.#dialog.close();
    say(`${name} is removed.`);
  }

  /** Whether the server did it; what it says against it is shown. One after the other: each is of the
   *  version that the one before made. */
  #do(action, button = null) {
    const name = this.#name;
    const done = this.#doing.then(() => this.#carryOut(name, action, button));
    this.#doing = done.catch(() => {});
    return done;
  }

  async #carryOut(name, action, button) {
    const expert = this.#experts.byName(name);
    if (!expert) return false;
    const tell = (error) => name === this.#name && show(byId("expert-error"), error);
    if (button) button.disabled = true;
    try {
      await action(expert);
      tell(null);
      return true;
    } catch (error) {
      tell(error);
      return false;
    } finally {
      if (button) button.disabled = false;
      await this.#experts.refresh();
    }
  }
}

function isOff(expert) {
  return stateOf(expert).kind === "disabled";
}

function factsOf(expert, meta) {
  const { traffic, routes, accuracy } = expert;
  const facts = [
    ["Worker", expert.worker && workerOf(expert)],
    ["Learned from", expert.examples && count(expert.examples, "example")],
    ["Held-out", accuracy != null && heldOut(expert, routes)],
    ["Called", traffic && `${count(traffic.handoffs, "time")}, ${percent(share(traffic, meta))} of the answers routed`],
    ["Wrote", traffic && `${count(traffic.answers, "answer")}; ${traffic.failures || "none"} failed`],
    ["First token", traffic && `${medianOf(traffic)} (median, from being called)`],
    ["Expert token", expert.slot != null && `slot ${expert.slot}`],
    ["Licence", expert.license],
    ["Registered", expert.created && new Date(expert.created).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })],
  ];
  return facts.filter(([, fact]) => fact);
}

function workerOf({ worker, bank }) {
  if (worker.kind === "external") return `${worker.model} at ${worker.url ?? worker.urls.join(", ")}`;
  return `${worker.checkpoint}${bank ? `, in the bank ${bank}` : ""}`;
}

function heldOut({ name, accuracy }, routes) {
  if (!routes) return `${percent(accuracy)} reached it`;
  const all = Object.values(routes).reduce((sum, number) => sum + number, 0);
  return `${routes[name] ?? 0} of ${all} reached it`;
}
