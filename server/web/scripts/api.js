// The orchestrator's API: the only module that sends requests.

import { eventData } from "./sse.js";
import { session } from "./storage.js";

const KEY = "trivium.key";

/** The server said no, or could not be reached. `status` 0: no HTTP answer, or an event said it. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfter = null, requestId = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param, retryAfter, requestId });
  }
}

export class Api {
  #askKey;
  #asking = null;

  /** `askKey(refused)`: resolves to a key, or null if the person gives none. */
  constructor(askKey) {
    this.#askKey = askKey;
  }

  /** Ids of the models that are served. `ask`: for a key, if need be. Raises ApiError. */
  async models(ask) {
    return (await this.json("v1/models", { ask })).data.map((model) => model.id);
  }

  /** The JSON that one request is answered with; null for an answer without. Raises ApiError. */
  async json(path, { method = "GET", body, ask, headers = {} } = {}) {
    const sent = { method, headers: { ...headers } };
    if (body) Object.assign(sent, { body: JSON.stringify(body) }).headers["Content-Type"] = "application/json";
    const response = await this.#request(path, sent, ask);
    return response.status === 204 ? null : response.json();
  }

  /** Ask for another key than the present one; whether there is one now. */
  changeKey() {
    return this.#newKey(session.getItem(KEY));
  }

  /** The chunks of a streamed answer. Raises ApiError; what an abort raises goes through. */
  async *stream(body, signal) {
    const response = await this.#request("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    for await (const data of received(response.body, signal)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, { code: chunk.error.code });
      yield chunk;
    }
    throw new ApiError("the stream ended early", { code: "cut" });
  }

  /** One request; where the server wants a key, the person is asked and it is sent again. */
  async #request(path, options, ask = true) {
    for (;;) {
      const key = session.getItem(KEY);
      const response = await send(path, key, options);
      if (response.ok) return response;
      const error = await errorOf(response);
      if (error.status !== 401 || !ask || !(await this.#newKey(key))) throw error;
    }
  }

  /** Whether there is another key than `refused` now. Requests that need one at once ask once. */
  async #newKey(refused) {
    const now = session.getItem(KEY);
    if (now !== refused) return now !== null;
    this.#asking ??= this.#askKey(refused !== null).finally(() => (this.#asking = null));
    const key = await this.#asking;
    if (key) session.setItem(KEY, key);
    return Boolean(key);
  }
}

async function send(path, key, options) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    return await fetch(path, { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("no answer", { code: "unreachable" });
  }
}

/** Events, where a connection that breaks is an ApiError. */
async function* received(body, signal) {
  try {
    yield* eventData(body);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("the connection broke", { code: "cut" });
  }
}

async function errorOf(response) {
  const body = await response.json().catch(() => null);
  const message = body?.error?.message || response.statusText || `it answered with the status ${response.status}`;
  return new ApiError(message, {
    status: response.status,
    code: body?.error?.code ?? null,
    param: body?.error?.param ?? null,
    retryAfter: response.headers.get("Retry-After"),
    requestId: response.headers.get("x-request-id"),
  });
}
