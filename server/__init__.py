"""The orchestrator: one OpenAI-compatible model in front of a meta LLM and its experts."""
