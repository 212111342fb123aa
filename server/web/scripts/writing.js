// Writes one answer: reads the stream into the turn, and measures it.

import { explain } from "./explain.js";

/**
 * Fill `answer` from `chunks(signal)` until the stream ends, fails or is aborted. Never raises.
 * `onText` is called after each change of the text; `clock` gives ms.
 */
export async function write(answer, chunks, signal, onText, clock = () => performance.now()) {
  const began = clock();
  try {
    for await (const chunk of chunks(signal)) {
      if (!take(answer, chunk)) continue;
      answer.firstMs ??= clock() - began;
      onText();
    }
    answer.state = "done";
  } catch (error) {
    answer.state = signal.aborted ? "stopped" : "failed";
    if (!signal.aborted) answer.error = explain(error);
  }
  answer.totalMs = clock() - began;
}

/** Whether the chunk brought text. */
function take(answer, chunk) {
  if (chunk.usage) answer.tokens = chunk.usage.completion_tokens;
  if (chunk.trivium) answer.segments = chunk.trivium.segments;
  const [choice] = chunk.choices ?? [];
  if (choice?.finish_reason) answer.finish = choice.finish_reason;
  const text = choice?.delta?.content;
  if (text) answer.text += text;
  return Boolean(text);
}
