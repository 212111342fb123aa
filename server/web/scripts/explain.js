// Errors of the API as sentences: what happened, and what to do.

const BY_CODE = {
  unreachable: () =>
    "The server cannot be reached. Check that it is running (trivium serve) and try again.",
  cut: () =>
    "The connection broke before the answer was complete. What had arrived is kept; try again for a whole answer.",
  context_length_exceeded: () =>
    "This conversation is too long for the model. Start a new chat, or edit an earlier message and send it again.",
  model_not_found: () => "This model is not served any more. Choose another one below the message box and try again.",
  not_ready: (error) => `Not ready yet: ${sentence(error.message)} ${wait(error)}`,
  upstream_failed: () => "The model that was writing failed. Try again; if it keeps failing, choose another model.",
  upstream_timeout: () => "The model that was writing fell silent. Try again; if it keeps failing, choose another model.",
};

const BY_STATUS = {
  400: (error) =>
    `The server did not accept the request: ${sentence(error.message)} Check the settings of this chat.`,
  401: () => "The server wants a key. Try again and enter one; who runs the server has it.",
  403: (error) => `This is not allowed: ${sentence(error.message)}`,
  413: () => "The message is too long for this server. Shorten it and send it again.",
  429: (error) => `The server has too much to do or your limit is used up. ${wait(error)}`,
  503: (error) => `The server is busy: ${sentence(error.message)} ${wait(error)}`,
};

/** One or two sentences for an ApiError, or for any other exception. */
export function explain(error) {
  const form = BY_CODE[error.code] ?? BY_STATUS[error.status];
  if (form) return form(error);
  if (error.status >= 500 || error.code === "internal_error") return ofServer(error);
  if (error.status !== undefined) return `The server refused: ${sentence(error.message)} Try again.`;
  return `Something went wrong on this page (${error.message}). Reload it and try again.`;
}

function ofServer(error) {
  const id = error.requestId ? ` under ${error.requestId}` : "";
  return `The server made an error; its log has the details${id}. Try again.`;
}

function wait(error) {
  const seconds = Number(error.retryAfter);
  return seconds > 0 ? `Try again in ${seconds} s.` : "Try again in a few seconds.";
}

/** A message of the API with a capital and a full stop. */
export function sentence(message) {
  const text = String(message).trim();
  const whole = text.slice(0, 1).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
