"""What workers send beside plain text, read with care: thoughts, and calls of tools.

Workers may be anybody's servers; what is not as it should be is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

REASONING_FIELDS = ("reasoning", "reasoning_content")
"""vLLM's name for what a model thinks, and that of others."""


def reasoning_in(delta: Mapping[str, Any]) -> str:
    """The thoughts in a delta, or ""."""
    texts = (delta.get(name) for name in REASONING_FIELDS)
    return next((text for text in texts if isinstance(text, str)), "")


@dataclass(frozen=True)
class CallDelta:
    """A piece of one call. `id` and `name` come with its first piece; "" where they do not."""

    index: int
    id: str
    name: str
    arguments: str
    """JSON, in pieces."""


def calls_in(delta: Mapping[str, Any]) -> Iterator[CallDelta]:
    """The pieces of calls in a delta."""
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if not isinstance(call, dict):
            continue
        index, function = call.get("index"), call.get("function")
        function = function if isinstance(function, dict) else {}
        yield CallDelta(
            index=index if isinstance(index, int) else 0,
            id=_text(call.get("id")),
            name=_text(function.get("name")),
            arguments=_text(function.get("arguments")),
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
