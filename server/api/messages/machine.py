"""Our events to the Messages API's: blocks that open, grow and close, within one message."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from server.api.chat.encode import trace
from server.api.deltas import CallDelta, calls_in, reasoning_in
from server.api.messages.objects import (
    AnswerBlock,
    AnswerMessage,
    AnswerText,
    AnswerThinking,
    AnswerToolUse,
    BlockDelta,
    BlockStart,
    BlockStop,
    InputPiece,
    LastFields,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    MessageUsage,
    StopReason,
    TextPiece,
    ThinkingPiece,
)
from server.relay.events import Event, Finished, RawDelta, TextDelta, Traced, Usage


class MessageMachine:
    """One answer. `message` is what came of it so far; it is complete after `end`."""

    def __init__(self, model: str) -> None:
        self.message = AnswerMessage(id=f"msg_{uuid.uuid4().hex}", model=model)
        self._finished = Finished("stop")
        self._began = False
        self._open: dict[int, AnswerBlock] = {}
        """By place. Calls stay open together: their deltas may alternate."""
        self._calls: dict[int, int] = {}
        """Places of calls by the index that their worker gave them."""
        self._inputs: dict[int, str] = {}
        """Arguments so far, by place."""

    def on(self, event: Event) -> Iterator[MessageEvent]:
        """Events that follow from `event`, which is not a `Failed`."""
        yield from self._begin()
        match event:
            case TextDelta() if event.text:
                yield from self._text(event.text)
            case RawDelta():
                if thought := reasoning_in(event.fields):
                    yield from self._thinking(thought)
                for call in calls_in(event.fields):
                    yield from self._call(call)
            case Finished():
                self._finished = event
            case Usage():
                self.message.usage = _usage(event)
            case Traced():
                self.message.trivium = trace(event.segments)

    def end(self) -> Iterator[MessageEvent]:
        """The last events of a complete answer."""
        yield from self._begin()
        if not self.message.content:
            yield from self._add(AnswerText())
        yield from self._close()
        message = self.message
        reason = _stop_reason(self._finished, bool(self._calls))
        stop = self._finished.stop_reason if reason == "stop_sequence" else None
        message.stop_reason, message.stop_sequence = reason, None if stop is None else str(stop)
        yield MessageDelta(
            delta=LastFields(stop_reason=reason, stop_sequence=message.stop_sequence),
            usage=message.usage,
            trivium=message.trivium,
        )
        yield MessageStop()

    # ------------------------------------------------------------ deltas

    def _begin(self) -> Iterator[MessageEvent]:
        """The tokens of the prompt are not known yet; the last event tells them."""
        if not self._began:
            self._began = True
            yield MessageStart(message=self.message)

    def _text(self, text: str) -> Iterator[MessageEvent]:
        place, block = self._latest()
        if not isinstance(block, AnswerText):
            yield from self._close()
            place, block = len(self.message.content), AnswerText()
            yield from self._add(block)
        block.text += text
        yield BlockDelta(index=place, delta=TextPiece(text=text))

    def _thinking(self, text: str) -> Iterator[MessageEvent]:
        place, block = self._latest()
        if not isinstance(block, AnswerThinking):
            yield from self._close()
            place, block = len(self.message.content), AnswerThinking()
            yield from self._add(block)
        block.thinking += text
        yield BlockDelta(index=place, delta=ThinkingPiece(thinking=text))

    def _call(self, delta: CallDelta) -> Iterator[MessageEvent]:
        place = self._calls.get(delta.index, -1)
        if place not in self._open:
            _, latest = self._latest()
            if not isinstance(latest, AnswerToolUse):
                yield from self._close()
            place = self._calls[delta.index] = len(self.message.content)
            call_id = delta.id or f"toolu_{uuid.uuid4().hex}"
            yield from self._add(AnswerToolUse(id=call_id, name=delta.name))
        if delta.arguments:
            self._inputs[place] = self._inputs.get(place, "") + delta.arguments
            yield BlockDelta(index=place, delta=InputPiece(partial_json=delta.arguments))

    # ------------------------------------------------------------ blocks

    def _latest(self) -> tuple[int, AnswerBlock | None]:
        """The open block that came last."""
        place = len(self.message.content) - 1
        return place, self._open.get(place)

    def _add(self, block: AnswerBlock) -> Iterator[MessageEvent]:
        place = len(self.message.content)
        self.message.content.append(block)
        self._open[place] = block
        yield BlockStart(index=place, content_block=block)

    def _close(self) -> Iterator[MessageEvent]:
        """Close what is open."""
        for place, block in self._open.items():
            if isinstance(block, AnswerToolUse):
                block.input = _input(self._inputs.get(place, ""))
            yield BlockStop(index=place)
        self._open.clear()


def _input(arguments: str) -> dict[str, Any]:
    """Arguments as an object; of those that were cut, or are none, nothing is left."""
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _stop_reason(finished: Finished, called: bool) -> StopReason:
    match finished.finish_reason:
        case "length":
            return "max_tokens"
        case "content_filter":
            return "refusal"
        case "tool_calls":
            return "tool_use"
    if isinstance(finished.stop_reason, str):
        return "stop_sequence"
    return "tool_use" if called else "end_turn"  # a call of a named tool ends with "stop"


def _usage(usage: Usage) -> MessageUsage:
    cached = usage.cached_tokens or 0
    return MessageUsage(
        input_tokens=max(0, usage.prompt_tokens - cached),
        cache_read_input_tokens=cached,
        output_tokens=usage.completion_tokens,
    )
