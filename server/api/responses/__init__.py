"""`POST /v1/responses`: OpenAI's Responses API, translated to chat and back; no state is kept."""
