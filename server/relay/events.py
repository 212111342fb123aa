"""The one typed event stream: what workers say, what the client gets, streamed or folded.

Events travel in batches: those that came of one read from a worker, so that a busy stream costs one
step for each read and not one for each token. A batch is never empty, and nothing waits for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import Struct

from server.errors import TriviumError


# Structs where a dataclass would do as well: one of the first two is made for each token, and
# making a frozen dataclass takes eight times as long.
class TextDelta(Struct, frozen=True, gc=False):
    """More text of one choice. `logprobs` is OpenAI's object for its tokens, passed on as is."""

    text: str
    choice: int = 0
    logprobs: Mapping[str, Any] | None = None
    kind: Literal["text"] = "text"


class RawDelta(Struct, frozen=True):
    """Parts of a delta that are not plain text (tool calls, reasoning, …), passed on as is."""

    fields: Mapping[str, Any]
    choice: int = 0
    logprobs: Mapping[str, Any] | None = None
    kind: Literal["raw"] = "raw"


class Routed(Struct, frozen=True):
    """The meta LLM chose `expert`, which writes on from here. Not shown to the client."""

    expert: str
    choice: int = 0
    kind: Literal["routed"] = "routed"


class Finished(Struct, frozen=True):
    """One choice is complete. From a worker, `stop_reason` may be a token id or a stop string."""

    finish_reason: str
    stop_reason: int | str | None = None
    choice: int = 0
    kind: Literal["finished"] = "finished"


class Usage(Struct, frozen=True, gc=False):
    """Tokens spent: by a worker's leg so far (cumulative), or by the whole request at its end."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    kind: Literal["usage"] = "usage"

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            _add(self.cached_tokens, other.cached_tokens),
            _add(self.reasoning_tokens, other.reasoning_tokens),
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """One leg of one choice: which model wrote which part of the answer, and when.

    `start` and `end` are characters of the choice's text; times are ms since the request began.
    `first_ms` is the moment of its first delta, if there was one. `token_id` and `probability` are
    the expert token that led here and its probability there, where known. `chances` are those of
    all experts, see Considered. `aborted`: the client left. `error_type` is an exception's name.
    """

    model: str
    choice: int
    start: int
    end: int
    start_ms: float
    end_ms: float
    tokens: int
    outcome: Literal["finished", "handoff", "failed", "aborted"]
    token_id: int | None = None
    probability: float | None = None
    error: str | None = None
    chances: Mapping[str, float] | None = None
    first_ms: float | None = None
    error_type: str | None = None


class Traced(Struct, frozen=True):
    """Every segment of the request, once, at its end."""

    segments: tuple[Segment, ...]
    kind: Literal["traced"] = "traced"


class Failed(Struct, frozen=True):
    """The request cannot be completed; nothing follows."""

    error: TriviumError
    kind: Literal["failed"] = "failed"


class Considered(Struct, frozen=True):
    """The probability of each expert, by name, where the meta LLM's leg was handed over, or else
    where it began. Only if a trace is wanted."""

    chances: Mapping[str, float]
    kind: Literal["considered"] = "considered"


WorkerEvent = TextDelta | RawDelta | Finished | Usage | Considered
"""What a worker's stream is made of."""

Event = TextDelta | RawDelta | Routed | Finished | Usage | Traced | Failed
"""What an answer is made of: deltas, one `Finished` a choice, then `Usage` and `Traced`; or it
ends early with `Failed`. A first `Usage` before the first delta tells the prompt's tokens."""

Batch = Sequence[Event]
WorkerBatch = Sequence[WorkerEvent]


def _add(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b
