"""The Messages API's events to the wire: a stream, or the message in one piece."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from pydantic import BaseModel

from server.api.messages.errors import anthropic_error
from server.api.messages.machine import MessageMachine
from server.api.messages.objects import MessageEvent
from server.api.streaming import named_event, run_to_end
from server.errors import error_body, http_status
from server.relay.events import Batch, Event
from server.seeing.logs import request_id
from server.wire import to_json


class MessageEncoder:
    """`streaming.Encoder` of messages."""

    def __init__(self, model: str) -> None:
        self._machine = MessageMachine(model)

    def encode(self, event: Event) -> bytes:
        return _written(self._machine.on(event))

    def end(self) -> bytes:
        return _written(self._machine.end())

    def failed(self, error: Exception) -> bytes:
        body = anthropic_error(error_body(error), http_status(error), request_id.get())
        return named_event("error", _json(body))


async def fold_message(batches: AsyncIterator[Batch], model: str) -> bytes:
    """JSON of the message. Raises the error of a `Failed`."""
    machine = MessageMachine(model)
    await run_to_end(machine, batches)
    return _json(machine.message)


def _written(events: Iterator[MessageEvent]) -> bytes:
    return b"".join(named_event(event.type, _json(event)) for event in events)


def _json(written: BaseModel) -> bytes:
    return to_json(written.model_dump(mode="json"))
