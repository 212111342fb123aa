"""The answer that `trivium bench relay` streams: what the stub writes and the load checks."""

from __future__ import annotations

CHUNKS = 64
"""Texts of one answer, each a token in a chunk of its own."""
_WORDS = (
    *(" some", " text", " that", " goes", " on", " and", ' "on"', ",\n", " as", " écrit", " by"),
    *(" models", " of", " all", " sizes", "."),
)
"""Five characters on average; a quotation mark, a line break and an accent, as answers have."""
TEXTS = tuple(_WORDS[i % len(_WORDS)] for i in range(CHUNKS))
ANSWER = "".join(TEXTS)
