"""Events to `/v1/completions` answers: one stream, or one JSON body."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from server.api.chat.encode import Answer, Closing, error_event, merge_delta, trace, usage_block
from server.api.completions.logprobs import OffsetLogprobs
from server.api.completions.schemas import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
)
from server.api.streaming import DONE, data_event, each, payload_json
from server.relay.events import Batch, Event, Finished, TextDelta, Traced, Usage


@dataclass(frozen=True)
class CompletionAnswer(Answer):
    """What every chunk of one answer says alike."""

    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")

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
        self._closing = Closing()

    def encode(self, event: Event) -> bytes:
        match event:
            case TextDelta():
                logprobs = self._logprobs[event.choice].block(event.logprobs)
                return self._chunk(_choice(event.choice, event.text, logprobs))
            case Finished():
                return self._chunk(_choice(event.choice, "", None, event))
        self._closing.note(event)
        return b""

    def end(self) -> bytes:
        fields = self._closing.fields(self._answer.include_usage)
        return (self._written([], **fields) if fields else b"") + DONE

    def failed(self, error: Exception) -> bytes:
        return error_event(error)

    def _chunk(self, choice: CompletionChoice) -> bytes:
        # OpenAI: with include_usage every chunk has a usage, null in all but the last one.
        fields = {"usage": None} if self._answer.include_usage else {}
        return self._written([choice], **fields)

    def _written(self, choices: list[CompletionChoice], **fields: Any) -> bytes:
        return data_event(payload_json(self._answer.envelope(choices, **fields)))


def _choice(
    index: int, text: str, logprobs: CompletionLogprobs | None, finished: Finished | None = None
) -> CompletionChoice:
    reason = finished.finish_reason if finished else None
    choice = CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=reason)
    if finished and finished.stop_reason is not None:
        choice.stop_reason = finished.stop_reason
    return choice


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
