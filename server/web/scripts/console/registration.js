// Follows a registration until it has ended.

const POLL_MS = 300;
const COUNTED = /\s+\d+\/\d+$/; // "encoding queries 12/53"

/**
 * Ask how the registration of `expert` goes, from the first view of it. `onStep(steps)` is called
 * each time, with [{ text, state }]. Resolves to why it failed, or null. Raises ApiError.
 */
export async function follow(admin, expert, onStep) {
  const steps = [];
  for (;;) {
    const { state, step, error } = expert.registration;
    if (state === "done") steps.forEach((one) => (one.state = "done"));
    else note(steps, step, state);
    onStep(steps);
    if (state !== "running") return error;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    expert = await admin.expert(expert.name);
  }
}

/** The last step is the present one. Steps that count take one line. */
function note(steps, text, state) {
  const kind = text.replace(COUNTED, "");
  let present = steps.find((one) => one.text.replace(COUNTED, "") === kind);
  if (!present) steps.push((present = {}));
  steps.forEach((one) => (one.state = "done"));
  Object.assign(present, { text, state });
}
