"""Events to the wire: one SSE stream or one JSON body. The only writer of `[DONE]`.

An error after the first byte is an event `data: {"error": …}` with OpenAI's error body and no
finish reason, followed by `[DONE]`, as vLLM does; OpenAI's clients raise it as an APIError.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Any, ClassVar

from server.errors import error_body
from server.events import Batch, Event, Finished, RawDelta, Segment, TextDelta, Usage
from server.schemas import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    Choice,
    ChunkChoice,
    Decision,
    TokenDetails,
    Trace,
    TraceSegment,
    UsageBlock,
)
from server.wire import to_json

log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Answer:
    """What every chunk of one answer says alike."""

    model: str
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def to(cls, request: ChatCompletionRequest) -> Answer:
        return cls(request.model, request.include_usage)


# ---------------------------------------------------------------- streamed


async def sse(batches: AsyncIterator[Batch], answer: Answer) -> AsyncIterator[bytes]:
    """The answer as server-sent events, those of a batch in one piece. A fault is raised as long
    as nothing was given; afterwards it becomes an error event."""
    encoder, begun, last = _ChunkEncoder(answer), False, b""
    try:
        async for batch in batches:
            first = next((event for event in batch if event.kind != "routed"), None)
            if not begun and first is not None and first.kind == "failed":
                raise first.error
            if lines := encoder.encode(batch):
                begun = True
                yield lines
            if encoder.failed:
                break
        else:
            if chunk := encoder.last_chunk():
                last = _data(_chunk_json(chunk))
    except Exception as error:
        if not begun:
            raise
        log.exception("a stream failed")
        last = _data(to_json(error_body(error)))
    yield last + DONE


class _ChunkEncoder:
    """Remembers whose role was told, and what belongs into the last chunk."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._introduced: set[int] = set()
        self._frames: dict[int, _Frame] = {}
        self._usage: Usage | None = None
        self._trace: Trace | None = None
        self.failed = False
        """Nothing follows."""

    def encode(self, batch: Batch) -> bytes:
        """The server-sent events for a batch; up to a `Failed`, and with it."""
        parts: list[bytes] = []
        for event in batch:
            if event.kind == "text" and not event.logprobs and event.choice in self._frames:
                parts.append(self._frames[event.choice].around(event.text))
            elif event.kind == "failed":
                self.failed = True
                parts.append(_data(to_json(error_body(event.error))))
                break
            else:
                parts += [_data(_chunk_json(chunk)) for chunk in self._chunks(event)]
        return b"".join(parts)

    def _chunks(self, event: Event) -> Iterable[ChatCompletionChunk]:
        """The chunk for `event`, if the client gets one."""
        match event:
            case TextDelta():
                yield self._chunk(event.choice, {"content": event.text}, event.logprobs)
            case RawDelta():
                yield self._chunk(event.choice, dict(event.fields), event.logprobs)
            case Finished():
                yield self._chunk(event.choice, {}, finished=event)
            case Usage():
                self._usage = event
            case _ if event.kind == "traced":
                self._trace = trace(event.segments)

    def last_chunk(self) -> ChatCompletionChunk | None:
        """Usage and trace, if the client asked for them; it has no choices, as OpenAI's."""
        fields: dict[str, Any] = {}
        if self._answer.include_usage and self._usage:
            fields["usage"] = usage_block(self._usage)
        if self._trace:
            fields["trivium"] = self._trace
        return self._envelope([], **fields) if fields else None

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: Mapping[str, Any] | None = None,
        finished: Finished | None = None,
    ) -> ChatCompletionChunk:
        if index not in self._introduced:
            self._introduced.add(index)
            self._frames[index] = _Frame.of(self._chunk(index, {"content": _Frame.MARK}))
            delta = {"role": "assistant", "content": "", **delta}
        choice = ChunkChoice(index=index, delta=delta, finish_reason=None)
        if logprobs:
            choice.logprobs = dict(logprobs)
        if finished:
            choice.finish_reason = finished.finish_reason
            if finished.stop_reason is not None:
                choice.stop_reason = finished.stop_reason
        # OpenAI: with include_usage every chunk has a usage, null in all but the last one.
        fields = {"usage": None} if self._answer.include_usage else {}
        return self._envelope([choice], **fields)

    def _envelope(self, choices: list[ChunkChoice], **fields: Any) -> ChatCompletionChunk:
        answer = self._answer
        return ChatCompletionChunk(
            id=answer.id,
            object="chat.completion.chunk",
            created=answer.created,
            model=answer.model,
            choices=choices,
            **fields,
        )


@dataclass(frozen=True, slots=True)
class _Frame:
    """What chunks with plain text of one choice have in common: all but the text."""

    MARK: ClassVar[str] = "TEXT"
    before: str
    after: str

    @classmethod
    def of(cls, chunk: ChatCompletionChunk) -> _Frame:
        """From a chunk whose text is MARK."""
        before, _, after = _data(_chunk_json(chunk)).decode().rpartition(f'"{cls.MARK}"')
        return cls(before, after)

    def around(self, text: str) -> bytes:
        return f"{self.before}{encode_basestring(text)}{self.after}".encode("utf-8", "replace")


def _chunk_json(chunk: ChatCompletionChunk) -> bytes:
    return chunk.model_dump_json(exclude_unset=True).encode()


def _data(payload: bytes) -> bytes:
    return b"data: " + payload + b"\n\n"


# ---------------------------------------------------------------- in one piece


async def fold(batches: AsyncIterator[Batch], answer: Answer) -> ChatCompletion:
    """The answer in one piece, from the same events. Raises the error of a `Failed`."""
    choices: dict[int, _FoldedChoice] = {}
    usage, extra = Usage(), dict[str, Trace]()
    async for batch in batches:
        for event in batch:
            match event:
                case TextDelta() | RawDelta() | Finished():
                    choices.setdefault(event.choice, _FoldedChoice()).add(event)
                case Usage():
                    usage = event
                case _ if event.kind == "traced":
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
            message["tool_calls"] = [_without_index(call) for call in calls]
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
    some servers repeat them.
    """
    for key, value in delta.items():
        old = whole.get(key)
        if value is None:
            continue
        if isinstance(value, str) and isinstance(old, str) and key not in ("id", "type", "name"):
            whole[key] = old + value
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


def _without_index(call: Any) -> Any:
    return {k: v for k, v in call.items() if k != "index"} if isinstance(call, dict) else call


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
    if segment.token_id is not None:
        wire.decision = Decision(token_id=segment.token_id)
        if segment.probability is not None:
            wire.decision.probability = segment.probability
    if segment.chances is not None:
        wire.chances = dict(segment.chances)
    if segment.error is not None:
        wire.error = segment.error
    return wire
