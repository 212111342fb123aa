"""The Responses API's events to the wire: a stream, or the response in one piece."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from pydantic import BaseModel

from server.api.responses.machine import ResponseMachine
from server.api.responses.objects import ResponseEvent
from server.api.responses.schemas import ResponsesRequest
from server.api.streaming import named_event, run_to_end
from server.relay.events import Batch, Event
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
    await run_to_end(machine, batches)
    return _json(machine.response)


def _json(written: BaseModel) -> bytes:
    return to_json(written.model_dump(mode="json"))
