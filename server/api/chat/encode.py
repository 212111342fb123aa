"""Chat completions on the wire: one stream of chunks or one JSON body.

An error after the first byte is an event `data: {"error": …}` with OpenAI's error body and no
finish reason, followed by `[DONE]`, as vLLM does; OpenAI's clients raise it as an APIError.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Any, ClassVar, Self

from server.api.chat.schemas import (
    ChatCompletion,
    Choice,
    Decision,
    TokenDetails,
    Trace,
    TraceSegment,
    UsageBlock,
)
from server.api.streaming import DONE, data_event, each
from server.errors import error_body
from server.relay.events import Batch, Event, Finished, RawDelta, Segment, TextDelta, Traced, Usage
from server.relay.legs import GenerationRequest
from server.wire import to_json


@dataclass(frozen=True)
class Answer:
    """What every chunk of one answer says alike."""

    model: str
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{os.urandom(16).hex()}")
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def to(cls, request: GenerationRequest) -> Self:
        return cls(request.model, request.include_usage)


# ---------------------------------------------------------------- streamed


class Closing:
    """Usage and trace, told in a last chunk without choices if the client asked for them."""

    def __init__(self) -> None:
        self._usage: Usage | None = None
        self._trace: Trace | None = None

    def note(self, event: Event) -> None:
        match event:
            case Usage():
                self._usage = event
            case Traced():
                self._trace = trace(event.segments)

    def fields(self, include_usage: bool) -> dict[str, Any]:
        """What the last chunk says; there is none without fields."""
        fields: dict[str, Any] = {}
        if include_usage and self._usage:
            fields["usage"] = usage_block(self._usage).model_dump(exclude_unset=True)
        if self._trace:
            fields["trivium"] = self._trace.model_dump(exclude_unset=True)
        return fields


def error_event(error: Exception) -> bytes:
    """What ends a stream that cannot be completed."""
    return data_event(to_json(error_body(error))) + DONE


class ChunkEncoder:
    """`streaming.Encoder` of chat completions. Remembers whose role was told."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._introduced: set[int] = set()
        self._frames: dict[int, _Frame] = {}
        self._closing = Closing()

    def encode(self, event: Event) -> bytes:
        match event:
            case TextDelta():
                if not event.logprobs and (frame := self._frames.get(event.choice)):
                    return frame.around(event.text)
                return self._chunk(event.choice, {"content": event.text}, event.logprobs)
            case RawDelta():
                return self._chunk(event.choice, dict(event.fields), event.logprobs)
            case Finished():
                return self._chunk(event.choice, {}, finished=event)
        self._closing.note(event)
        return b""

    def end(self) -> bytes:
        fields = self._closing.fields(self._answer.include_usage)
        return (self._written([], **fields) if fields else b"") + DONE

    def failed(self, error: Exception) -> bytes:
        return error_event(error)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: Mapping[str, Any] | None = None,
        finished: Finished | None = None,
    ) -> bytes:
        if index not in self._introduced:
            self._introduced.add(index)
            self._frames[index] = _Frame.of(self._chunk(index, {"content": _Frame.MARK}))
            delta = {"role": "assistant", "content": "", **delta}
        choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": None}
        if logprobs:
            choice["logprobs"] = logprobs
        if finished:
            choice["finish_reason"] = finished.finish_reason
            if finished.stop_reason is not None:
                choice["stop_reason"] = finished.stop_reason
        # OpenAI: with include_usage every chunk has a usage, null in all but the last one.
        fields = {"usage": None} if self._answer.include_usage else {}
        return self._written([choice], **fields)

    def _written(self, choices: list[dict[str, Any]], **fields: Any) -> bytes:
        """A ChatCompletionChunk; as a dict, which takes a fifth of the time."""
        answer = self._answer
        chunk = {
            "id": answer.id,
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": answer.model,
            "choices": choices,
        }
        return data_event(to_json(chunk | fields))


@dataclass(frozen=True, slots=True)
class _Frame:
    """What chunks with plain text of one choice have in common: all but the text."""

    MARK: ClassVar[str] = "TEXT"
    before: str
    after: str

    @classmethod
    def of(cls, chunk: bytes) -> _Frame:
        """From a chunk whose text is MARK."""
        before, _, after = chunk.decode().rpartition(f'"{cls.MARK}"')
        return cls(before, after)

    def around(self, text: str) -> bytes:
        return f"{self.before}{encode_basestring(text)}{self.after}".encode("utf-8", "replace")


# ---------------------------------------------------------------- in one piece


async def fold(batches: AsyncIterator[Batch], answer: Answer) -> ChatCompletion:
    """The answer in one piece, from the same events. Raises the error of a `Failed`."""
    choices: dict[int, _FoldedChoice] = {}
    usage, extra = Usage(), dict[str, Trace]()
    async for event in each(batches):
        match event:
            case TextDelta() | RawDelta() | Finished():
                choices.setdefault(event.choice, _FoldedChoice()).add(event)
            case Usage():
                usage = event
            case Traced():
                extra["trivium"] = trace(event.segments)
            case _ if event.kind == "failed":
                raise event.error
    return ChatCompletion(
        id=answer.id,
        object="chat.completion",
        created=answer.created,
        model=answer.model,
        choices=[choices[index].choice(index) for index in sorted(choices)],
        usage=usage_block(usage),
        **extra,
    )


class _FoldedChoice:
    """Sums up the deltas of one choice."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._fields: dict[str, Any] = {}
        self._logprobs: dict[str, Any] = {}
        self._finished = Finished("stop")

    def add(self, event: TextDelta | RawDelta | Finished) -> None:
        if isinstance(event, Finished):
            self._finished = event
            return
        if isinstance(event, TextDelta):
            self._text.append(event.text)
        else:
            merge_delta(self._fields, event.fields)
        if event.logprobs:
            merge_delta(self._logprobs, event.logprobs, plain_lists=True)

    def choice(self, index: int) -> Choice:
        text = "".join(self._text)
        calls = self._fields.get("tool_calls")
        message = {"role": "assistant", "content": text or (None if calls else ""), **self._fields}
        if calls:
            message["tool_calls"] = [_tool_call(call) for call in calls]
        return Choice(
            index=index,
            message=message,
            logprobs=self._logprobs or None,
            finish_reason=self._finished.finish_reason,
            stop_reason=self._finished.stop_reason,
        )


def merge_delta(
    whole: dict[str, Any], delta: Mapping[str, Any], *, plain_lists: bool = False
) -> None:
    """Add `delta` to `whole`: texts are joined, lists of indexed objects merged by index.

    With `plain_lists` every list is simply joined. `id`, `type` and `name` are set, not joined:
    some servers repeat them, or send them empty.
    """
    for key, value in delta.items():
        old = whole.get(key)
        if value is None:
            continue
        if isinstance(value, str) and isinstance(old, str):
            whole[key] = (value or old) if key in ("id", "type", "name") else old + value
        elif isinstance(value, dict):
            merged = dict(old) if isinstance(old, dict) else {}
            merge_delta(merged, value, plain_lists=plain_lists)
            whole[key] = merged
        elif isinstance(value, list):
            joined = list(old) if isinstance(old, list) else []
            whole[key] = joined + value if plain_lists else _merge_indexed(joined, value)
        else:
            whole[key] = value


def _merge_indexed(whole: list[Any], delta: list[Any]) -> list[Any]:
    for item in delta:
        index = item.get("index") if isinstance(item, dict) else None
        same = next((i for i in whole if isinstance(i, dict) and i.get("index") == index), None)
        if index is None or same is None:
            whole.append(dict(item) if isinstance(item, dict) else item)
        else:
            merge_delta(same, item)
    return whole


def _tool_call(call: Any) -> Any:
    """A call as its client expects it, also if it was cut before its arguments."""
    if not isinstance(call, dict):
        return call
    whole = {"type": "function"} | {k: v for k, v in call.items() if k != "index"}
    if isinstance(function := whole.get("function"), dict):
        whole["function"] = {"arguments": ""} | function
    return whole


# ---------------------------------------------------------------- shared parts


def usage_block(usage: Usage) -> UsageBlock:
    """OpenAI's usage object."""
    block = UsageBlock(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
    if usage.cached_tokens is not None:
        block.prompt_tokens_details = TokenDetails(cached_tokens=usage.cached_tokens)
    if usage.reasoning_tokens is not None:
        block.completion_tokens_details = TokenDetails(reasoning_tokens=usage.reasoning_tokens)
    return block


def trace(segments: Iterable[Segment]) -> Trace:
    """The `trivium` object."""
    return Trace(segments=[_trace_segment(segment) for segment in segments])


def _trace_segment(segment: Segment) -> TraceSegment:
    wire = TraceSegment(
        choice=segment.choice,
        model=segment.model,
        start=segment.start,
        end=segment.end,
        start_ms=segment.start_ms,
        end_ms=segment.end_ms,
        tokens=segment.tokens,
        outcome=segment.outcome,
    )
    if segment.first_ms is not None:
        wire.first_ms = segment.first_ms
    if segment.token_id is not None:
        wire.decision = Decision(token_id=segment.token_id)
        if segment.probability is not None:
            wire.decision.probability = segment.probability
    if segment.chances is not None:
        wire.chances = dict(segment.chances)
    if segment.error is not None:
        wire.error = segment.error
    return wire
