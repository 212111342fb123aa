// The admin API, and a query with its trace: every request of the console.

const EXPERTS = "v1/experts";
const TRIED_TOKENS = 48;

export class Admin {
  #api;

  constructor(api) {
    this.#api = api;
  }

  /** { data: [expert], meta }. `ask`: for a key, if need be. All raise ApiError. */
  list(ask) {
    return this.#api.json(EXPERTS, { ask });
  }

  expert(name) {
    return this.#api.json(pathOf(name));
  }

  /** Begin a registration; resolves as soon as it has begun. */
  add(manifest) {
    return this.#api.json(`${EXPERTS}?wait=false`, { method: "POST", body: manifest });
  }

  /** `changes`: { enabled, threshold }, what is left out stays. Of this version of `expert` only. */
  change(expert, changes) {
    return this.#api.json(pathOf(expert.name), { method: "PATCH", body: changes, headers: only(expert) });
  }

  remove(expert) {
    return this.#api.json(pathOf(expert.name), { method: "DELETE", headers: only(expert) });
  }

  /** { name: { before, after } }, each expert's accuracies. */
  refit() {
    return this.#api.json(`${EXPERTS}/refit`, { method: "POST" });
  }

  /** The beginning of the answer to `query`: { text, segments }, segments as the API tells them. */
  async tried(query) {
    const body = {
      model: "trivium",
      messages: [{ role: "user", content: query }],
      max_tokens: TRIED_TOKENS,
      trivium: { trace: true },
    };
    const answer = await this.#api.json("v1/chat/completions", { method: "POST", body });
    return { text: answer.choices[0].message.content ?? "", segments: answer.trivium.segments };
  }
}

function only({ version }) {
  return version == null ? {} : { "If-Match": `"${version}"` };
}

function pathOf(name) {
  return `${EXPERTS}/${encodeURIComponent(name)}`;
}
