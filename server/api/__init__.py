"""The forms of the API: OpenAI's chat, completions, responses; Anthropic's messages; ours."""
