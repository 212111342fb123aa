"""Events to server-sent events in any form: an encoder for each API, one loop for all."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Protocol

from pydantic import BaseModel

from server.events import Event

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


async def encoded(events: AsyncIterator[Event], encoder: Encoder) -> AsyncIterator[bytes]:
    """The answer as server-sent events. Never raises: a fault becomes an error event."""
    try:
        async for event in events:
            if event.kind == "failed":
                yield encoder.failed(event.error)
                return
            if data := encoder.encode(event):
                yield data
        yield encoder.end()
    except Exception as error:
        log.exception("a stream failed")
        yield encoder.failed(error)


def named_event(name: str, data: bytes) -> bytes:
    """A server-sent event with a name, as OpenAI's Responses and Anthropic's Messages have."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def payload_json(payload: BaseModel) -> bytes:
    """JSON of those fields that were set."""
    return payload.model_dump_json(exclude_unset=True).encode()
