"""Our events to the Responses API's: items that open, grow and close, around one response."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from server.api.chat.encode import trace
from server.api.ordering import Ordering, Piece, Thought
from server.api.responses.objects import (
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    FunctionCall,
    IncompleteDetails,
    InputTokensDetails,
    ItemEvent,
    LifeEvent,
    Logprob,
    OutputItem,
    OutputMessage,
    OutputText,
    OutputTokensDetails,
    PartEvent,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    ReasoningItem,
    ReasoningText,
    ResponseError,
    ResponseEvent,
    ResponseObject,
    ResponseUsage,
    Status,
    TextDeltaEvent,
    TextDoneEvent,
    TopLogprob,
)
from server.api.responses.schemas import ResponsesRequest
from server.errors import error_body
from server.relay.events import Event, Finished, RawDelta, Routed, TextDelta, Traced, Usage


class ResponseMachine:
    """One answer. `response` is what came of it so far; it is complete after `end`."""

    def __init__(self, request: ResponsesRequest) -> None:
        self.response = new_response(request)
        self._finished = Finished("stop")
        self._began = False
        self._usage: Usage | None = None
        self._ordering = Ordering()
        self._open: OutputItem | None = None
        """The last item, until it is closed."""

    def on(self, event: Event) -> Iterator[ResponseEvent]:
        """Events that follow from `event`, which is not a `Failed`."""
        match event:
            case TextDelta() | RawDelta():
                yield from self._begin()
                yield from self._pieces(self._ordering.add(event))
            case Finished():
                self._finished = event
            case Usage():
                self._usage = event
            case Traced():
                self.response.trivium = trace(event.segments)
            case Routed():  # its expert may yet refuse the request, with a status of its own
                pass

    def end(self) -> Iterator[ResponseEvent]:
        """The last events of a complete answer."""
        yield from self._begin()
        yield from self._pieces(self._ordering.rest())
        if self._usage is not None:
            self.response.usage = _usage(self._usage)
        if not self.response.output:
            yield from self._add(OutputMessage(id=_id("msg"), content=[OutputText()]))
        cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(
            self._finished.finish_reason
        )
        yield from self._close("incomplete" if cut else "completed")
        self.response.status = "incomplete" if cut else "completed"
        if cut:
            self.response.incomplete_details = IncompleteDetails.model_validate({"reason": cut})
        yield LifeEvent(type=f"response.{self.response.status}", response=self.response)

    def failed(self, error: Exception) -> Iterator[ResponseEvent]:
        """The last event of an answer that cannot be completed."""
        yield from self._begin()
        yield from self._pieces(self._ordering.rest())
        if self._open is not None:
            self._open.status = "incomplete"
        self.response.status = "failed"
        self.response.error = ResponseError(message=error_body(error)["error"]["message"])
        yield LifeEvent(type="response.failed", response=self.response)

    # ------------------------------------------------------------ deltas

    def _begin(self) -> Iterator[ResponseEvent]:
        if not self._began:
            self._began = True
            yield LifeEvent(type="response.created", response=self.response)
            yield LifeEvent(type="response.in_progress", response=self.response)

    def _pieces(self, pieces: Iterable[tuple[bool, Piece]]) -> Iterator[ResponseEvent]:
        for begins, piece in pieces:
            if begins:
                yield from self._close("completed")
                yield from self._add(_item(piece))
            yield from self._grow(piece)

    def _grow(self, piece: Piece) -> Iterator[ResponseEvent]:
        place, item = len(self.response.output) - 1, self._open
        match piece:
            case TextDelta():
                assert isinstance(item, OutputMessage)
                part, logprobs = item.content[0], _logprobs(piece.logprobs)
                part.text += piece.text
                part.logprobs += logprobs
                yield TextDeltaEvent(
                    output_index=place, item_id=item.id, delta=piece.text, logprobs=logprobs
                )
            case Thought():
                assert isinstance(item, ReasoningItem)
                item.content[0].text += piece.text
                yield ReasoningDeltaEvent(output_index=place, item_id=item.id, delta=piece.text)
            case _ if piece.arguments:
                assert isinstance(item, FunctionCall)
                item.arguments += piece.arguments
                yield ArgumentsDeltaEvent(
                    output_index=place, item_id=item.id, delta=piece.arguments
                )

    # ------------------------------------------------------------ items

    def _add(self, item: OutputItem) -> Iterator[ResponseEvent]:
        """Open `item`; its text part, if it has one, is announced after it."""
        place = len(self.response.output)
        self.response.output.append(item)
        self._open = item
        if isinstance(item, FunctionCall):
            yield ItemEvent(type="response.output_item.added", output_index=place, item=item)
            return
        bare = item.model_copy(update={"content": []})
        yield ItemEvent(type="response.output_item.added", output_index=place, item=bare)
        yield PartEvent(
            type="response.content_part.added",
            output_index=place,
            item_id=item.id,
            part=item.content[0],
        )

    def _close(self, status: Status) -> Iterator[ResponseEvent]:
        """Close the open item."""
        item, self._open = self._open, None
        if item is None:
            return
        item.status = status
        place = len(self.response.output) - 1
        yield from _last_of(place, item)
        yield ItemEvent(type="response.output_item.done", output_index=place, item=item)


def _item(piece: Piece) -> OutputItem:
    """The empty item that `piece` begins."""
    match piece:
        case TextDelta():
            return OutputMessage(id=_id("msg"), content=[OutputText()])
        case Thought():
            return ReasoningItem(id=_id("rs"), content=[ReasoningText()])
    return FunctionCall(id=_id("fc"), call_id=piece.id or _id("call"), name=piece.name)


def _last_of(place: int, item: OutputItem) -> Iterator[ResponseEvent]:
    """What comes before an item is done: its whole text or arguments."""
    if isinstance(item, FunctionCall):
        yield ArgumentsDoneEvent(
            output_index=place, item_id=item.id, name=item.name, arguments=item.arguments
        )
        return
    part = item.content[0]
    if isinstance(part, OutputText):
        yield TextDoneEvent(
            output_index=place, item_id=item.id, text=part.text, logprobs=part.logprobs
        )
    else:
        yield ReasoningDoneEvent(output_index=place, item_id=item.id, text=part.text)
    yield PartEvent(
        type="response.content_part.done", output_index=place, item_id=item.id, part=part
    )


# ---------------------------------------------------------------- parts of the response


def new_response(request: ResponsesRequest) -> ResponseObject:
    """The response to `request`, with nothing in it yet."""
    choice = request.tool_choice or "auto"
    parallel = request.parallel_tool_calls
    return ResponseObject(
        id=_id("resp"),
        created_at=int(time.time()),
        model=request.model,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata or {},
        parallel_tool_calls=True if parallel is None else parallel,
        reasoning=request.reasoning.model_dump() if request.reasoning else None,
        temperature=request.temperature,
        text=_text_config(request),
        tool_choice=choice if isinstance(choice, str) else choice.model_dump(),
        tools=[tool.model_dump() for tool in request.tools or ()],
        top_logprobs=request.top_logprobs or 0,
        top_p=request.top_p,
        truncation=request.truncation or "disabled",
        user=request.user,
    )


def _text_config(request: ResponsesRequest) -> dict[str, Any]:
    config = request.text.model_dump(by_alias=True, exclude_unset=True) if request.text else {}
    return {**config, "format": config.get("format") or {"type": "text"}}


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_tokens or 0),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens or 0),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _logprobs(logprobs: Mapping[str, Any] | None) -> list[Logprob]:
    """Entries of a chat delta; each must have its bytes here."""
    return [
        Logprob(
            **_top(entry).model_dump(),
            top_logprobs=[_top(top) for top in entry.get("top_logprobs") or ()],
        )
        for entry in (logprobs or {}).get("content") or ()
    ]


def _top(entry: Mapping[str, Any]) -> TopLogprob:
    token = entry["token"]
    data = entry.get("bytes")
    return TopLogprob(
        token=token,
        bytes=list(token.encode()) if data is None else data,
        logprob=entry["logprob"],
    )


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"
