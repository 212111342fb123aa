"""Log-probabilities of completions: a form of their own, turned into the chats' and back.

Inside, there is one form, that of chat completions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.api.completions.schemas import CompletionLogprobs


def chat_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    """The choice of a worker's completion chunk as the choice of a chat chunk.

    Raises AttributeError, KeyError, TypeError or ValueError for what is neither.
    """
    rest = {k: v for k, v in choice.items() if k not in ("text", "logprobs")}
    logprobs = choice.get("logprobs")
    return {
        **rest,
        "delta": {"content": choice["text"]},
        "logprobs": {"content": _entries(logprobs)} if logprobs else None,
    }


def _entries(logprobs: Mapping[str, Any]) -> list[dict[str, Any]]:
    tokens, values = logprobs["tokens"], logprobs["token_logprobs"]
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    return [
        {"token": token, "logprob": value, "top_logprobs": _top_entries(top)}
        for token, value, top in zip(tokens, values, tops, strict=True)
    ]


def _top_entries(top: Mapping[str, float] | None) -> list[dict[str, Any]] | None:
    return None if top is None else [{"token": t, "logprob": v} for t, v in top.items()]


class OffsetLogprobs:
    """Turns the entries of one completion back, with offsets that go on over its deltas.

    Offsets count characters of the tokens, as vLLM does, from the first token reported.
    """

    def __init__(self) -> None:
        self._offset = 0

    def block(self, logprobs: Mapping[str, Any] | None) -> CompletionLogprobs | None:
        """The block for one delta, or for all of them joined."""
        if not logprobs:
            return None
        entries: Sequence[Mapping[str, Any]] = logprobs["content"]
        tops = [entry["top_logprobs"] for entry in entries]
        return CompletionLogprobs(
            tokens=[entry["token"] for entry in entries],
            token_logprobs=[entry["logprob"] for entry in entries],
            top_logprobs=[
                None if top is None else {t["token"]: t["logprob"] for t in top} for top in tops
            ],
            text_offset=[self._next(entry["token"]) for entry in entries],
        )

    def _next(self, token: str) -> int:
        offset = self._offset
        self._offset += len(token)
        return offset
