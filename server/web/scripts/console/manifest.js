// What a person filled in, as a manifest. Raises FieldError; everything else is the server's to judge.

/** A field that cannot be read; `param` is its name. */
export class FieldError extends Error {
  constructor(message, param) {
    super(message);
    this.param = param;
    this.status = 400; // told as the server's own
  }
}

/** From the form's `FormData`. */
export function manifestOf(data) {
  const text = (name) => data.get(name).trim();
  if (data.get("form") === "manifest") return parsed(text("manifest"));
  const managed = data.get("kind") === "managed";
  if (managed && !text("worker.checkpoint")) {
    throw new FieldError("Give the folder of the checkpoint.", "worker.checkpoint"); // "" is one, too
  }
  const key = text("worker.api_key_env");
  const counter = queriesOf(data.get("counter_examples"), "counter_examples");
  return {
    name: text("name"),
    description: text("description"),
    worker: managed
      ? { checkpoint: text("worker.checkpoint") }
      : { url: text("worker.url"), model: text("worker.model"), ...(key && { api_key_env: key }) },
    examples: queriesOf(data.get("examples"), "examples"),
    ...(counter.length && { counter_examples: counter }),
  };
}

/** A query for each line that is not blank; one that begins with { is JSON. */
export function queriesOf(text, param) {
  const queries = [];
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.trim();
    if (line) queries.push(line.startsWith("{") ? fromJson(line, index + 1, param) : line);
  }
  return queries;
}

function fromJson(line, number, param) {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new FieldError(`Line ${number} begins with { and is not JSON: ${error.message}`, param);
  }
}

function parsed(text) {
  let manifest = null;
  try {
    manifest = JSON.parse(text);
  } catch (error) {
    const yaml = /^\s*\w+:/.test(text) ? " It looks like YAML: the command “trivium experts add FOLDER” takes that." : "";
    throw new FieldError(`This is not JSON: ${error.message}.${yaml}`, "manifest");
  }
  if (manifest === null || typeof manifest !== "object" || Array.isArray(manifest)) {
    throw new FieldError("A manifest is an object: {\"name\": …, \"description\": …, …}.", "manifest");
  }
  return manifest;
}
