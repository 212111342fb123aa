"""`POST /v1/messages`: Anthropic's Messages API, translated to chat and back."""
