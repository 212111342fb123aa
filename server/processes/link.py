"""What the owner knows of one relay: what it was told, and what it may still use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from server.processes.messages import (
    Channel,
    Explain,
    Explained,
    Holds,
    State,
    Stop,
    Tell,
    Told,
    ToOwner,
)
from server.relay.snapshot import Endpoint, LiveExpert, Snapshot
from server.seeing.sums import Family

Explainer = Callable[[Endpoint, str, Sequence[LiveExpert]], Awaitable[Mapping[str, float]]]
"""`Fleet.explain`."""


class Link:
    """One relay, from the start of its process to its end."""

    def __init__(self, channel: Channel[ToOwner], explain: Explainer) -> None:
        self._channel, self._explain = channel, explain
        self._follows = 0
        """The number of the latest state that it is known to have."""
        self._told: dict[int, Snapshot] = {}
        """Snapshots that it was told of, by version, but for those that it holds no more."""
        self._changed = asyncio.Event()
        self._explaining: set[asyncio.Task[None]] = set()
        self._reports = 0
        self.metrics: list[Family] = []
        """As it told them last."""

    @property
    def begun(self) -> bool:
        """Whether it has heard its first state; before that it takes no requests."""
        return self._follows > 0

    def tell(self, state: State) -> None:
        self._told[state.snapshot.version] = state.snapshot
        self._channel.send(state)

    def stop(self) -> None:
        self._channel.send(Stop())

    def may_use(self, token_id: int) -> bool:
        """Whether an answer there could still meet a token id, or one that begins before the
        latest state arrives."""
        return any(snapshot.by_token(token_id) for snapshot in self._told.values())

    async def follows(self, number: int) -> None:
        """Wait until it has a state."""
        while self._follows < number:
            await self._changed.wait()

    async def report(self) -> None:
        """Wait for fresh `metrics`."""
        before = self._reports
        self._channel.send(Tell())
        while self._reports == before:
            await self._changed.wait()

    async def listen(self) -> None:
        """Hear what it says, until it ends."""
        try:
            async for message in self._channel.messages():
                self._on(message)
                self._changed.set()
                self._changed.clear()
        finally:
            self._channel.close()
            for task in self._explaining:
                task.cancel()

    def _on(self, message: ToOwner) -> None:
        match message:
            case Holds():
                self._follows = message.state
                latest = max(message.versions)
                self._told = {
                    version: snapshot
                    for version, snapshot in self._told.items()
                    if version in message.versions or version > latest
                }
            case Told():
                self.metrics = message.families
                self._reports += 1
            case Explain():
                task = asyncio.create_task(self._answer(message))
                self._explaining.add(task)
                task.add_done_callback(self._explaining.discard)

    async def _answer(self, asked: Explain) -> None:
        chances: Mapping[str, float] = {}
        try:
            chances = await self._explain(asked.endpoint, asked.key, asked.experts)
        finally:  # an answer waits for it
            self._channel.send(Explained(asked.id, dict(chances)))
