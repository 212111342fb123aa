// What a conversation is, and what may happen to it. Pure: no page, no network, no clock of its own.
//
// A conversation is { id, title, named, created, updated, written, settings, turns }; times are ms since
// 1970, `written` that of the last sign of who writes an answer.
// A turn is a question { role: "user", text } or an answer
//   { role: "assistant", text, model, state, error, finish, segments, tokens, firstMs, totalMs }
// whose `state` is "streaming", "done", "stopped" or "failed"; `note` says why another did not replace it.

export const AUTO = "trivium";
export const SILENT_MS = 6000;
const TITLE_LENGTH = 60;

/** An empty conversation with the given settings. */
export function newConversation(settings, now = Date.now()) {
  return {
    id: crypto.randomUUID?.() ?? `${now}-${Math.random().toString(36).slice(2)}`,
    title: "New chat",
    named: false,
    created: now,
    updated: now,
    settings: { model: AUTO, ...settings },
    turns: [],
  };
}

/** Add a question and the answer that is to be written. Returns the answer. */
export function ask(conversation, text, now = Date.now()) {
  conversation.turns.push({ role: "user", text });
  if (!conversation.named) conversation.title = titleFrom(conversation);
  return expectAnswer(conversation, now);
}

/** Put back the answer that another one was to replace, which did not come, and why it did not. */
export function keepAnswer(conversation, answer, why) {
  conversation.turns.splice(-1, 1, answer);
  answer.note = why;
}

/** Drop the last answer and expect another. Returns it. */
export function askAgain(conversation, now = Date.now()) {
  if (conversation.turns.at(-1)?.role === "assistant") conversation.turns.pop();
  return expectAnswer(conversation, now);
}

/** Put `text` in place of the question at `index`; what followed it is dropped. */
export function askInstead(conversation, index, text, now = Date.now()) {
  conversation.turns.length = index;
  return ask(conversation, text, now);
}

function expectAnswer(conversation, now) {
  conversation.turns.push({
    role: "assistant",
    text: "",
    model: conversation.settings.model,
    state: "streaming",
  });
  conversation.updated = now;
  return conversation.turns.at(-1);
}

function titleFrom(conversation) {
  const first = conversation.turns[0].text.trim().replace(/\s+/g, " ");
  return first.length > TITLE_LENGTH ? `${first.slice(0, TITLE_LENGTH).trimEnd()}…` : first;
}

/** Body of `POST v1/chat/completions` for the answer that the conversation ends with. */
export function requestBody(conversation) {
  const { model, system, ...sampling } = conversation.settings;
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const { role, text } of conversation.turns.slice(0, -1)) addMessage(messages, role, text);
  const given = Object.entries(sampling).filter(([, value]) => value != null);
  return {
    model,
    messages,
    ...Object.fromEntries(given),
    stream: true,
    stream_options: { include_usage: true },
    trivium: { trace: true },
  };
}

/** The request for the rest of an answer of which `written`, some `tokens`, has come. */
export function continued(body, written, tokens) {
  if (!written) return body;
  const messages = [...body.messages, { role: "assistant", content: written }];
  const rest = { ...body, messages, continue_final_message: true, add_generation_prompt: false };
  if (body.max_tokens != null) rest.max_tokens = Math.max(1, body.max_tokens - tokens);
  return rest;
}

/** Chat templates want turns to alternate: an answer of nothing is left out, neighbours are joined. */
function addMessage(messages, role, content) {
  const last = messages.at(-1);
  if (role === "assistant" && !content) return;
  if (last?.role === role) last.content += `\n\n${content}`;
  else messages.push({ role, content });
}

/** Whether another tab writes the last answer: it says so every second or two. */
export function isElsewhere(conversation, now = Date.now()) {
  return conversation.turns.at(-1)?.state === "streaming" && now - conversation.written < SILENT_MS;
}

/** A stored conversation, mended: an answer that nobody goes on writing is over. */
export function revived(conversation, now = Date.now()) {
  const last = isElsewhere(conversation, now) ? conversation.turns.at(-1) : null;
  for (const turn of conversation.turns) {
    if (turn.state === "streaming" && turn !== last) turn.state = "stopped";
    delete turn.note;
  }
  return conversation;
}

/**
 * Make `mine` what is `stored`, and keep the turns that stay what they are, so that their views do. An
 * answer that is being written grows in place. Returns { turns: whether some came or went, grown: it }.
 */
export function adopt(mine, stored) {
  const { turns } = mine;
  let grown = null;
  let same = 0;
  for (; same < Math.min(turns.length, stored.turns.length); same++) {
    const [one, other] = [turns[same], stored.turns[same]];
    if (JSON.stringify({ ...one, note: undefined }) === JSON.stringify(other)) continue;
    if (one.state !== "streaming" || same + 1 < stored.turns.length) break;
    grown = Object.assign(one, other);
  }
  const moved = same < Math.max(turns.length, stored.turns.length);
  turns.splice(same, turns.length, ...stored.turns.slice(same));
  Object.assign(mine, stored, { turns });
  return { turns: moved, grown };
}

/** The conversation as a JSON file's text. */
export function exported(conversation) {
  return `${JSON.stringify({ format: "trivium-conversation", version: 1, ...conversation }, null, 2)}\n`;
}
