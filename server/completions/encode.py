"""Events to `/v1/completions` answers: one stream, or one JSON body."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from server.completions.logprobs import OffsetLogprobs
from server.completions.schemas import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from server.encode import DONE, merge_delta, trace, usage_block
from server.errors import error_body
from server.events import Batch, Event, Finished, TextDelta, Traced, Usage
from server.schemas import Trace
from server.streaming import each, payload_json
from server.wire import to_json


@dataclass(frozen=True)
class CompletionAnswer:
    """What every chunk of one answer says alike."""

    model: str
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def to(cls, request: CompletionRequest) -> CompletionAnswer:
        return cls(request.model, request.include_usage)

    def envelope(self, choices: list[CompletionChoice], **fields: Any) -> Completion:
        return Completion(
            id=self.id,
            object="text_completion",
            created=self.created,
            model=self.model,
            choices=choices,
            **fields,
        )


class CompletionEncoder:
    """`streaming.Encoder` of text completions."""

    def __init__(self, answer: CompletionAnswer) -> None:
        self._answer = answer
        self._logprobs: dict[int, OffsetLogprobs] = defaultdict(OffsetLogprobs)
        self._usage: Usage | None = None
        self._trace: Trace | None = None

    def encode(self, event: Event) -> bytes:
        match event:
            case TextDelta():
                logprobs = self._logprobs[event.choice].block(event.logprobs)
                return self._chunk(_choice(event.choice, event.text, logprobs))
            case Finished():
                return self._chunk(_choice(event.choice, "", None, event))
            case Usage():
                self._usage = event
            case Traced():
                self._trace = trace(event.segments)
        return b""

    def end(self) -> bytes:
        """Usage and trace, if the client asked for them, in a chunk without choices."""
        fields: dict[str, Any] = {}
        if self._answer.include_usage and self._usage:
            fields["usage"] = usage_block(self._usage)
        if self._trace:
            fields["trivium"] = self._trace
        last = _data(payload_json(self._answer.envelope([], **fields))) if fields else b""
        return last + DONE

    def failed(self, error: Exception) -> bytes:
        return _data(to_json(error_body(error))) + DONE

    def _chunk(self, choice: CompletionChoice) -> bytes:
        # OpenAI: with include_usage every chunk has a usage, null in all but the last one.
        fields = {"usage": None} if self._answer.include_usage else {}
        return _data(payload_json(self._answer.envelope([choice], **fields)))


def _choice(
    index: int, text: str, logprobs: CompletionLogprobs | None, finished: Finished | None = None
) -> CompletionChoice:
    reason = finished.finish_reason if finished else None
    choice = CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=reason)
    if finished and finished.stop_reason is not None:
        choice.stop_reason = finished.stop_reason
    return choice


def _data(payload: bytes) -> bytes:
    return b"data: " + payload + b"\n\n"


@dataclass
class _Folded:
    text: str = ""
    logprobs: dict[str, Any] = field(default_factory=dict)
    finished: Finished = field(default_factory=lambda: Finished("stop"))

    def choice(self, index: int) -> CompletionChoice:
        logprobs = OffsetLogprobs().block(self.logprobs)
        return _choice(index, self.text, logprobs, self.finished)


async def fold_completion(batches: AsyncIterator[Batch], answer: CompletionAnswer) -> Completion:
    """The answer in one piece. Raises the error of a `Failed`."""
    choices: dict[int, _Folded] = defaultdict(_Folded)
    fields: dict[str, Any] = {"usage": usage_block(Usage())}
    async for event in each(batches):
        match event:
            case TextDelta():
                choices[event.choice].text += event.text
                merge_delta(choices[event.choice].logprobs, event.logprobs or {}, plain_lists=True)
            case Finished():
                choices[event.choice].finished = event
            case Usage():
                fields["usage"] = usage_block(event)
            case Traced():
                fields["trivium"] = trace(event.segments)
            case _ if event.kind == "failed":
                raise event.error
    return answer.envelope([choices[index].choice(index) for index in sorted(choices)], **fields)
