// Errors of the admin API as they are told: its own sentences, which name what is at fault.

import { explain, sentence } from "../explain.js";

const ITS_OWN = [400, 403, 404, 409, 412, 413, 422];

/** One or two sentences for an ApiError, or for any other exception. */
export function told(error) {
  return ITS_OWN.includes(error.status) ? sentence(error.message) : explain(error);
}

/** Show the error in `notice`; null takes it away. */
export function show(notice, error) {
  notice.hidden = error === null;
  notice.textContent = error === null ? "" : told(error);
}
