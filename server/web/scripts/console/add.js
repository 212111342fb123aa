// The dialog that adds an expert: a form or a manifest, then the registration's steps.

import { say } from "../announcer.js";
import { byId, el } from "../dom.js";
import { sentence } from "../explain.js";
import { count } from "../format.js";
import { show, told } from "./faults.js";
import { manifestOf } from "./manifest.js";
import { follow } from "./registration.js";

export class AddDialog {
  #dialog = byId("add");
  #form = byId("add-form");
  #admin;
  #experts;
  #onFailed;
  #following = null;

  /** `onFailed(name, reason)`: of a registration that nobody was watching any more. */
  constructor(admin, experts, onFailed) {
    this.#admin = admin;
    this.#experts = experts;
    this.#onFailed = onFailed;
    this.#form.addEventListener("submit", (event) => this.#submit(event));
    this.#form.addEventListener("change", (event) => this.#choose(event));
    byId("add-examples").addEventListener("input", () => this.#countExamples());
    byId("add-again").addEventListener("click", () => this.#showForm());
    this.#dialog.addEventListener("click", (event) => event.target.closest("[data-close]") && this.#dialog.close());
    for (const input of this.#form.querySelectorAll("[data-into]")) {
      input.addEventListener("change", () => this.#read(input));
    }
  }

  open() {
    this.#showForm();
    this.#dialog.showModal();
    this.#form.querySelector("input:not([type=radio])").focus();
  }

  #showForm() {
    this.#following = null;
    this.#complain(null);
    this.#form.hidden = false;
    byId("add-progress").hidden = true;
    this.#dialog.setAttribute("aria-labelledby", "add-title");
  }

  #choose({ target }) {
    if (target.type !== "radio") return;
    for (const part of this.#form.querySelectorAll("[data-for]")) {
      const mine = [...this.#form.elements[target.name]].some((radio) => radio.value === part.dataset.for);
      if (mine) part.hidden = part.dataset.for !== target.value;
    }
  }

  #countExamples() {
    const lines = byId("add-examples").value.split("\n").filter((line) => line.trim()).length;
    byId("add-count").textContent = lines ? count(lines, "example") : "";
  }

  async #read(input) {
    const [file] = input.files;
    if (!file) return;
    byId(input.dataset.into).value = await file.text();
    input.value = "";
    this.#countExamples();
  }

  async #submit(event) {
    event.preventDefault();
    const button = this.#form.querySelector("[type=submit]");
    button.disabled = true;
    try {
      this.#watch(await this.#admin.add(manifestOf(new FormData(this.#form))));
    } catch (error) {
      this.#complain(error);
    } finally {
      button.disabled = false;
    }
  }

  /** Show an error, at its field if there is one; null takes it away. */
  #complain(error) {
    for (const field of this.#form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    const notice = byId("add-error");
    show(notice, error);
    this.#form.querySelector(".dialog-row").before(notice);
    const field = error && this.#fieldOf(error.param ?? "");
    if (!field) return;
    field.closest("details")?.setAttribute("open", "");
    field.after(notice);
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }

  /** The visible field that `param` names, such as "worker.url" or "examples.3.messages". */
  #fieldOf(param) {
    const manifest = this.#form.elements.manifest;
    if (!manifest.closest("[hidden]")) return manifest;
    const [first, ...rest] = param.split(".");
    const names = [param, `${first}.${rest.at(-1)}`, first];
    const fields = [...this.#form.querySelectorAll("input[name], textarea[name]")];
    const seen = fields.filter((field) => field.type !== "radio" && !field.closest("[hidden]"));
    return seen.find((field) => names.includes(field.name)) ?? seen.find((field) => field.name.startsWith(`${first}.`));
  }

  async #watch(expert) {
    const { name } = expert;
    const following = (this.#following = Symbol(name));
    const watched = () => this.#following === following && this.#dialog.open;
    this.#form.hidden = true;
    byId("add-progress").hidden = false;
    byId("add-again").hidden = true;
    this.#dialog.setAttribute("aria-labelledby", "progress-title");
    byId("progress-title").textContent = `Registering ${name}`;
    byId("progress-title").focus();
    this.#tell("It goes on when this is closed.", false);
    this.#experts.refresh();
    let unheard = false;
    const error = await follow(this.#admin, expert, (steps) => watched() && showSteps(steps)).catch((failure) => {
      unheard = true; // the registration itself may go on
      return `${told(failure)} The list says how it ended.`;
    });
    this.#experts.refresh();
    if (watched()) this.#ended(name, error, unheard);
    else if (error && !unheard) this.#onFailed(name, sentence(error));
  }

  #ended(name, error, unheard) {
    const failed = unheard ? `Nothing more is heard of ${name}` : `${name} was not registered`;
    byId("progress-title").textContent = error ? failed : `${name} is live`;
    this.#tell(error ? sentence(error) : `Clients reach it through trivium, and as trivium/${name}.`, Boolean(error));
    byId("add-again").hidden = !error;
    if (error) return;
    this.#form.reset();
    this.#form.querySelectorAll("[type=radio][checked]").forEach((radio) => this.#choose({ target: radio }));
    this.#countExamples();
  }

  #tell(text, isError) {
    byId("progress-text").textContent = text;
    byId("progress-text").classList.toggle("error", isError);
  }
}

function showSteps(steps) {
  const list = byId("steps");
  const shown = list.childElementCount;
  list.replaceChildren(...steps.map(({ text, state }) => el("li", { "data-state": state }, text)));
  if (steps.length > shown) say(steps.at(-1).text);
}
