"""What the owner and a relay tell each other: lines of JSON over a socket pair.

    owner → relay    State     what is live, again at every change     (answered by Holds)
                     Stop      finish the running answers and end; a second one: now
                     Tell      say how the metrics stand                (answered by Told)
                     Explained the answer to Explain
    relay → owner    Holds     the state it follows, and the snapshots that its answers still use
                     Told      its metrics
                     Explain   ask the meta worker how probable each expert was

Nobody else can write to the socket; when it is closed, the other side has ended.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from server.relay.snapshot import Endpoint, LiveExpert, Snapshot
from server.seeing.sums import Family
from server.services import Health

MOST_BYTES = 64 << 20
"""Of a line; a page of metrics is the longest."""


class Message(msgspec.Struct, frozen=True, tag=True):
    """A line."""


class State(Message, frozen=True):
    """`number` counts the states of one owner."""

    number: int
    snapshot: Snapshot
    health: Health


class Stop(Message, frozen=True):
    pass


class Tell(Message, frozen=True):
    pass


class Explained(Message, frozen=True):
    id: int
    chances: dict[str, float]


class Holds(Message, frozen=True):
    """`state`: the number of the latest it has. `versions`: that state's snapshot, and those that
    running answers began with."""

    state: int
    versions: frozenset[int]


class Told(Message, frozen=True):
    families: list[Family]


class Explain(Message, frozen=True):
    """The question of `Fleet.explain`."""

    id: int
    endpoint: Endpoint
    key: str
    experts: list[LiveExpert]


ToRelay = State | Stop | Tell | Explained
ToOwner = Holds | Told | Explain

Received = TypeVar("Received")


class Channel(Generic[Received]):
    """One side of the socket pair."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received: Any
    ) -> None:
        self._reader, self._writer = reader, writer
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(received).decode

    def send(self, message: Message) -> None:
        """Never waits: messages are few and small. To a side that has ended: nothing."""
        if not self._writer.is_closing():
            self._writer.write(self._encode(message) + b"\n")

    async def messages(self) -> AsyncIterator[Received]:
        """Until the other side ends."""
        try:
            while line := await self._reader.readline():
                yield self._decode(line)
        except ConnectionError:
            return

    def close(self) -> None:
        self._writer.close()


async def owners_channel(end: socket.socket) -> Channel[ToOwner]:
    """The owner's side of a pair."""
    return Channel(*await asyncio.open_unix_connection(sock=end, limit=MOST_BYTES), ToOwner)


async def relays_channel(end: socket.socket) -> Channel[ToRelay]:
    """The relay's side."""
    return Channel(*await asyncio.open_unix_connection(sock=end, limit=MOST_BYTES), ToRelay)


class Orders(msgspec.Struct, frozen=True):
    """What a relay is started with, on its standard input."""

    settings: Mapping[str, Any]
    """`Settings` as JSON."""
    place: int
    """Which of the processes it is; the owner is 0."""
    started: int
    """Unix time (s); the models' `created`."""
    owner: str
    """The socket that the owner takes forwarded requests at."""
    control: int
    """The descriptor of its end of the socket pair."""
    ledger: int
    """The descriptor of the memory in which limits are counted."""
