// Follows a registration until it has ended.

const POLL_MS = 300;
const UNHEARD_MS = 60_000;
const COUNTED = /\s+\d+\/\d+$/; // "encoding queries 12/53"

/**
 * Ask how the registration of `expert` goes, from the first view of it. `onStep(steps)` is called
 * each time, with [{ text, state }]. Resolves to why it failed, or null. Raises ApiError.
 */
export async function follow(admin, expert, onStep) {
  const steps = [];
  let heard = Date.now();
  for (;;) {
    // Null: another orchestrator than the one that carried it out answers, and it is stored.
    const { state, step, error } = expert.registration ?? { state: "done", step: "", error: null };
    if (state === "done") steps.forEach((one) => (one.state = "done"));
    else note(steps, step, state);
    onStep(steps);
    if (state !== "running") return error;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    try {
      expert = await admin.expert(expert.name);
      heard = Date.now();
    } catch (failure) {
      // One that does not know it yet is not the one that carries it out, and a server that cannot be
      // asked for a moment goes on with it: ask again, for a while.
      const passing = failure.code === "unreachable" || [404, 429].includes(failure.status) || failure.status >= 500;
      if (!passing || Date.now() - heard > UNHEARD_MS) throw failure;
    }
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
