"""Events to server-sent events in any form: an encoder for each API, one loop for all."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from pydantic import BaseModel

from server.errors import TriviumError
from server.relay.events import Batch, Event
from server.wire import LastPiece

DONE = b"data: [DONE]\n\n"
"""Ends OpenAI's streams of chunks."""

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """One answer of one API. Each method returns whole server-sent events, or nothing."""

    def encode(self, event: Event) -> bytes:
        """What the client gets for `event`, which is not a `Failed`."""
        ...

    def end(self) -> bytes:
        """What closes a complete answer."""
        ...

    def failed(self, error: Exception) -> bytes:
        """What closes an answer that cannot be completed."""
        ...


async def encoded(batches: AsyncIterator[Batch], encoder: Encoder) -> AsyncIterator[bytes]:
    """The answer as server-sent events, those of a batch in one piece, ended by a `LastPiece`.

    A fault is raised as long as nothing was given; afterwards it becomes an error event.
    """
    begun = False
    try:
        async for batch in batches:
            data = b"".join(encoder.encode(event) for event in batch if event.kind != "failed")
            if data:
                begun = True
                yield data
            if batch[-1].kind == "failed":
                raise batch[-1].error
        yield LastPiece(encoder.end())
    except Exception as error:
        if not begun:
            raise
        if not isinstance(error, TriviumError):
            log.exception("a stream failed")
        yield LastPiece(encoder.failed(error))


async def each(batches: AsyncIterator[Batch]) -> AsyncIterator[Event]:
    """The events of all batches."""
    async for batch in batches:
        for event in batch:
            yield event


class Machine(Protocol):
    """Turns events into those of another form, and holds the whole answer at its end."""

    def on(self, event: Event) -> Iterator[BaseModel]: ...

    def end(self) -> Iterator[BaseModel]: ...


async def run_to_end(machine: Machine, batches: AsyncIterator[Batch]) -> None:
    """Give the machine all events. Raises the error of a `Failed`."""
    async for event in each(batches):
        if event.kind == "failed":
            raise event.error
        for _ in machine.on(event):
            pass
    for _ in machine.end():
        pass


def data_event(payload: bytes) -> bytes:
    """A server-sent event without a name."""
    return b"data: " + payload + b"\n\n"


def named_event(name: str, data: bytes) -> bytes:
    """A server-sent event with a name, as OpenAI's Responses and Anthropic's Messages have."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def payload_json(payload: BaseModel) -> bytes:
    """JSON of those fields that were set."""
    return payload.model_dump_json(exclude_unset=True).encode()
