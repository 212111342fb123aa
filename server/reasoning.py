"""What a reasoning model thinks, as workers send it beside the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIELDS = ("reasoning", "reasoning_content")
"""vLLM's name for it, and that of others."""


def reasoning_in(delta: Mapping[str, Any]) -> str:
    """The thoughts in a delta, or ""."""
    texts = (delta.get(name) for name in FIELDS)
    return next((text for text in texts if isinstance(text, str)), "")
