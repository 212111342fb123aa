"""Our events to the Messages API's: blocks that open, grow and close, within one message."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator

from server.api.chat.encode import trace
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
from server.api.ordering import Ordering, Piece, Thought, object_in
from server.relay.events import Event, Finished, RawDelta, Routed, TextDelta, Traced, Usage


class MessageMachine:
    """One answer. `message` is what came of it so far; it is complete after `end`."""

    def __init__(self, model: str) -> None:
        self.message = AnswerMessage(id=f"msg_{uuid.uuid4().hex}", model=model)
        self._finished = Finished("stop")
        self._began = False
        self._ordering = Ordering()
        self._open: AnswerBlock | None = None
        """The last block, until it is closed."""
        self._input = ""
        """Arguments so far, of the open call."""
        self._cut = False
        """Whether the last call's arguments are not whole."""

    def on(self, event: Event) -> Iterator[MessageEvent]:
        """Events that follow from `event`, which is not a `Failed`."""
        match event:
            case Usage():
                self.message.usage = _usage(event)
            case Traced():
                self.message.trivium = trace(event.segments)
            case Finished():
                self._finished = event
            case TextDelta(text=""):
                yield from self._begin()
            case TextDelta() | RawDelta():
                yield from self._begin()
                yield from self._pieces(self._ordering.add(event))
            case Routed():  # its expert may yet refuse the request, with a status of its own
                pass

    def end(self) -> Iterator[MessageEvent]:
        """The last events of a complete answer."""
        yield from self._begin()
        yield from self._pieces(self._ordering.rest())
        message = self.message
        if not message.content:
            yield from self._add(AnswerText())
        yield from self._close()
        called = any(isinstance(block, AnswerToolUse) for block in message.content)
        reason = _stop_reason(self._finished, called, self._cut)
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
        """The last event tells all tokens; those of the first prompt are known here already."""
        if not self._began:
            self._began = True
            yield MessageStart(message=self.message)

    def _pieces(self, pieces: Iterable[tuple[bool, Piece]]) -> Iterator[MessageEvent]:
        for begins, piece in pieces:
            if begins:
                yield from self._close()
                yield from self._add(_block(piece))
            yield from self._grow(piece)

    def _grow(self, piece: Piece) -> Iterator[MessageEvent]:
        place, block = len(self.message.content) - 1, self._open
        match piece:
            case TextDelta():
                assert isinstance(block, AnswerText)
                block.text += piece.text
                yield BlockDelta(index=place, delta=TextPiece(text=piece.text))
            case Thought():
                assert isinstance(block, AnswerThinking)
                block.thinking += piece.text
                yield BlockDelta(index=place, delta=ThinkingPiece(thinking=piece.text))
            case _ if piece.arguments:
                self._input += piece.arguments
                yield BlockDelta(index=place, delta=InputPiece(partial_json=piece.arguments))

    # ------------------------------------------------------------ blocks

    def _add(self, block: AnswerBlock) -> Iterator[MessageEvent]:
        self.message.content.append(block)
        self._open, self._input = block, ""
        yield BlockStart(index=len(self.message.content) - 1, content_block=block)

    def _close(self) -> Iterator[MessageEvent]:
        """Close the open block. Of arguments that were cut nothing is left."""
        if self._open is None:
            return
        if isinstance(self._open, AnswerToolUse):
            arguments = object_in(self._input or "{}")
            self._open.input, self._cut = arguments or {}, arguments is None
        self._open = None
        yield BlockStop(index=len(self.message.content) - 1)


def _block(piece: Piece) -> AnswerBlock:
    """The empty block that `piece` begins."""
    match piece:
        case TextDelta():
            return AnswerText()
        case Thought():
            return AnswerThinking()
    return AnswerToolUse(id=piece.id or f"toolu_{uuid.uuid4().hex}", name=piece.name)


def _stop_reason(finished: Finished, called: bool, cut: bool) -> StopReason:
    """A call that a stop string `cut` must not be made."""
    match finished.finish_reason:
        case "length":
            return "max_tokens"
        case "content_filter":
            return "refusal"
    if isinstance(finished.stop_reason, str) and (cut or not called):
        return "stop_sequence"
    # A call of a named tool ends with "stop".
    return "tool_use" if called or finished.finish_reason == "tool_calls" else "end_turn"


def _usage(usage: Usage) -> MessageUsage:
    cached = usage.cached_tokens or 0
    return MessageUsage(
        input_tokens=max(0, usage.prompt_tokens - cached),
        cache_read_input_tokens=cached,
        output_tokens=usage.completion_tokens,
    )
