"""The async driver: carries out what `handoff` decides, for every choice of a request."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

from server.errors import TriviumError, UpstreamTimeout
from server.relay.events import Batch, Considered, Event, Traced, WorkerEvent
from server.relay.handoff import (
    Action,
    Handoff,
    LegEnded,
    LegFailed,
    StartLeg,
    total_usage,
)
from server.relay.legs import META, GenerationRequest, Leg, Target, make_plan, worker_body
from server.relay.pool import Call, Pool
from server.relay.snapshot import Endpoint, LiveExpert, SnapshotHolder
from server.seeing.observe import Observer, Watch, unobserved

QUEUED_BATCHES = 64
"""Batches that wait for the client when several choices are merged; then the workers wait."""


REQUEST_SECONDS = 1800.0

Happening = WorkerEvent | LegEnded | LegFailed
"""What the state machine is told of."""

Explain = Callable[[Endpoint, str, Sequence[LiveExpert]], Awaitable[Mapping[str, float]]]
"""The probabilities of experts in the request that a meta worker explains under a key."""

Wake = Callable[[str], Awaitable[None]]
"""Returns when an expert that was asleep answers. Raises UpstreamError."""


class Dispatcher:
    """Turns requests into event streams. Keeps nothing from one request to the next."""

    def __init__(
        self,
        snapshots: SnapshotHolder,
        pool: Pool,
        clock: Callable[[], float] = time.monotonic,
        explain: Explain | None = None,
        longest: float = REQUEST_SECONDS,
        observer: Observer = unobserved,
        wake: Wake | None = None,
    ) -> None:
        """`longest`: what one request may take (s). The clock is the pool's, too."""
        self._snapshots = snapshots
        self._pool = pool
        self._clock = clock
        self._explain = explain
        self.longest = longest
        self._observer = observer
        self._wake = wake

    async def run(self, request: GenerationRequest) -> AsyncGenerator[Batch, None]:
        """The events of the whole answer; closing the generator aborts every worker's request.

        Raises UnknownModel or NotReady before the first event; later faults come as `Failed`.
        """
        began = self._clock()
        deadline = began + min(request.options.timeout or self.longest, self.longest)
        watch = Watch(self._observer, self._clock, request.model, request.background_call)
        with watch.request(), self._snapshots.lease() as snapshot:
            plan = make_plan(request, snapshot)
            choices = [Handoff(plan, index, began) for index in range(request.choices)]
            watch.choices = choices
            watch.usage = lambda: total_usage(choices, request.n or 1)
            answers = [self._drive(request, choice, deadline, watch) for choice in choices]
            merged = answers[0] if len(answers) == 1 else merge(answers)
            async with aclosing(merged) as batches:
                async for batch in batches:
                    if (failed := batch[-1]).kind == "failed":
                        watch.error = failed.error
                        yield batch
                        return
                    yield batch
        last: list[Event] = [watch.usage()]
        if request.options.trace:
            last.append(Traced(tuple(s for choice in choices for s in choice.segments)))
        yield last

    async def _drive(
        self, request: GenerationRequest, choice: Handoff, deadline: float, watch: Watch
    ) -> AsyncGenerator[Batch, None]:
        """One choice, leg after leg, until the state machine is done."""
        turn: Action | None = choice.start(self._clock())[-1]
        failed = set[Endpoint]()
        while isinstance(turn, StartLeg):
            leg = turn.leg
            with watch.leg(choice, leg):
                async with aclosing(self._leg(request, leg, deadline, failed)) as worker:
                    async for batch in worker:
                        events, turn = choice.on_batch(batch, self._clock())
                        if events:
                            yield events
                        if turn is not None:
                            break

    async def _leg(
        self, request: GenerationRequest, leg: Leg, deadline: float, failed: set[Endpoint]
    ) -> AsyncGenerator[Sequence[Happening], None]:
        """One worker's stream, its end or failure as a last event."""
        explain = self._explain if request.options.trace and leg.experts else None
        key = None if explain is None else uuid.uuid4().hex
        call = Call(
            leg.target.name,
            lambda: self._replicas(leg.target),
            worker_body(request, leg, key),
            request.path,
            deadline,
            failed,
            waits=leg.at_home and bool(leg.prefix),
        )
        try:
            await self._awake(leg.target, deadline)
            async with self._pool.stream(call) as stream:
                yield stream.head
                async for batch in stream.rest:
                    yield batch
        except TriviumError as error:
            yield [LegFailed(error, self._pool.another(call))]
        else:
            if explain is not None and key is not None:
                chances = await explain(stream.endpoint, key, leg.experts)
                yield [Considered(chances), LegEnded()]
            else:
                yield [LegEnded()]

    async def _awake(self, target: Target, deadline: float) -> None:
        """Wait for an expert that is asleep. Raises UpstreamTimeout, and what waking it raises."""
        replicas = self._replicas(target)
        if self._wake is None or not replicas or not all(e.asleep for e in replicas):
            return
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                await self._wake(target.name)
        except TimeoutError:
            raise UpstreamTimeout(f"no worker of {target.name!r} came up in time") from None

    def _replicas(self, target: Target) -> tuple[Endpoint, ...]:
        """Where a model answers now. An expert that was taken out writes on where it was."""
        current = self._snapshots.current
        if target.name == META:
            return current.meta
        expert = current.by_name(target.name)
        return expert.endpoints if expert else target.endpoints


async def merge(streams: Sequence[AsyncGenerator[Batch, None]]) -> AsyncGenerator[Batch, None]:
    """Batches of all streams as they come, each stream's in order. The first exception ends it."""
    queue: asyncio.Queue[Batch | BaseException | None] = asyncio.Queue(QUEUED_BATCHES)
    pumps = [asyncio.create_task(_pump(stream, queue)) for stream in streams]
    try:
        running = len(pumps)
        while running:
            item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    stream: AsyncGenerator[Batch, None], queue: asyncio.Queue[Batch | BaseException | None]
) -> None:
    """Put a stream's batches into the queue, then None, or the exception that ended it."""
    last: BaseException | None = None
    try:
        async with aclosing(stream):
            async for batch in stream:
                await queue.put(batch)
    except Exception as error:
        last = error
    await queue.put(last)
