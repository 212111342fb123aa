// Writes one answer: reads the stream into the turn, and measures it.

import { explain } from "./explain.js";

const ATTEMPTS = 5;
const PAUSE_MS = 1000;
const REFUSED = [401, 403]; // another key may help

/**
 * Fill `answer` from `chunks(signal, written, tokens)` until the stream ends, fails or is aborted.
 * Never raises. `written` is what came before the connection broke, of some `tokens` (a chunk counts
 * as one): the answer goes on from there. `onText` is called after each change of the text; `clock` gives ms.
 */
export async function write(answer, chunks, signal, onText, clock = () => performance.now()) {
  const began = clock();
  let tokens = 0;
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        const before = { text: [...answer.text].length, tokens };
        for await (const chunk of chunks(signal, answer.text, tokens)) {
          if (!take(answer, chunk, before)) continue;
          tokens += 1;
          answer.firstMs ??= clock() - began;
          onText();
        }
        break;
      } catch (error) {
        if (error.code === "cut" && answer.finish) break; // all of it had come
        const again = ["cut", "unreachable"].includes(error.code) && answer.text && !signal.aborted;
        if (!again || attempt === ATTEMPTS) throw error;
        await pause(PAUSE_MS, signal);
      }
    }
    answer.state = "done";
  } catch (error) {
    answer.state = signal.aborted ? "stopped" : "failed";
    if (!signal.aborted) Object.assign(answer, { error: explain(error), refused: REFUSED.includes(error.status) });
  }
  answer.totalMs = clock() - began;
}

/** Resolves after `ms`, and at once when `signal` is aborted. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
    signal.addEventListener("abort", resolve, { once: true });
  });
}

/** Whether the chunk brought text. `before`: characters and tokens that came before this stream. */
function take(answer, chunk, before) {
  if (chunk.usage) answer.tokens = before.tokens + chunk.usage.completion_tokens;
  if (chunk.trivium) {
    const moved = (part) => ({ ...part, start: part.start + before.text, end: part.end + before.text });
    answer.segments = chunk.trivium.segments.map(moved);
  }
  const [choice] = chunk.choices ?? [];
  if (choice?.finish_reason) answer.finish = choice.finish_reason;
  const text = choice?.delta?.content;
  if (text) answer.text += text;
  return Boolean(text);
}
