"""The Responses API's events to the wire: a stream, or the response in one piece."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from pydantic import BaseModel

from server.events import Batch, Event
from server.responses.machine import ResponseMachine
from server.responses.objects import ResponseEvent
from server.responses.schemas import ResponsesRequest
from server.streaming import each, named_event
from server.wire import to_json


class ResponseEncoder:
    """`streaming.Encoder` of responses."""

    def __init__(self, request: ResponsesRequest) -> None:
        self._machine = ResponseMachine(request)
        self._number = 0

    def encode(self, event: Event) -> bytes:
        return self._written(self._machine.on(event))

    def end(self) -> bytes:
        return self._written(self._machine.end())

    def failed(self, error: Exception) -> bytes:
        return self._written(self._machine.failed(error))

    def _written(self, events: Iterator[ResponseEvent]) -> bytes:
        return b"".join(self._sse(event) for event in events)

    def _sse(self, event: ResponseEvent) -> bytes:
        event.sequence_number = self._number
        self._number += 1
        return named_event(event.type, _json(event))


async def fold_response(batches: AsyncIterator[Batch], request: ResponsesRequest) -> bytes:
    """JSON of the response. Raises the error of a `Failed`."""
    machine = ResponseMachine(request)
    async for event in each(batches):
        if event.kind == "failed":
            raise event.error
        for _ in machine.on(event):
            pass
    for _ in machine.end():
        pass
    return _json(machine.response)


def _json(written: BaseModel) -> bytes:
    return to_json(written.model_dump(mode="json"))
