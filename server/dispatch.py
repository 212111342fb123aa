"""The async driver: carries out what `handoff` decides, for every choice of a request."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

from server.errors import TriviumError
from server.events import Considered, Event, Traced, WorkerEvent
from server.handoff import (
    Action,
    Done,
    Emit,
    Handoff,
    LegEnded,
    LegFailed,
    StartLeg,
    total_usage,
)
from server.happenings import Observer, Recovered, unobserved
from server.legs import META, Leg, Target, make_plan, worker_body
from server.pool import Call, Pool
from server.schemas import ChatCompletionRequest
from server.snapshot import Endpoint, LiveExpert, SnapshotHolder

QUEUED_EVENTS = 64
"""Events that wait for the client when several choices are merged; then the workers wait."""


REQUEST_SECONDS = 1800.0

Explain = Callable[[Endpoint, str, Sequence[LiveExpert]], Awaitable[Mapping[str, float]]]
"""The probabilities of experts in the request that a meta worker explains under a key."""


class Dispatcher:
    """Turns requests into event streams. Keeps nothing from one request to the next."""

    def __init__(
        self,
        snapshots: SnapshotHolder,
        pool: Pool,
        clock: Callable[[], float] = time.monotonic,
        explain: Explain | None = None,
        longest: float = REQUEST_SECONDS,
        observe: Observer = unobserved,
    ) -> None:
        """`longest`: what one request may take (s). The clock is the pool's, too."""
        self._snapshots = snapshots
        self._pool = pool
        self._clock = clock
        self._explain = explain
        self.longest = longest
        self._observe = observe

    async def run(self, request: ChatCompletionRequest) -> AsyncGenerator[Event, None]:
        """The events of the whole answer; closing the generator aborts every worker's request.

        Raises UnknownModel or NotReady before the first event; later faults come as `Failed`.
        """
        began = self._clock()
        deadline = began + min(request.options.timeout or self.longest, self.longest)
        with self._snapshots.lease() as snapshot:
            plan = make_plan(request, snapshot)
            choices = [Handoff(plan, index, began) for index in range(request.choices)]
            async with aclosing(
                merge([self._drive(request, c, deadline) for c in choices])
            ) as events:
                async for event in events:
                    yield event
                    if event.kind == "failed":
                        return
        yield total_usage(choices)
        if request.options.trace:
            yield Traced(tuple(segment for choice in choices for segment in choice.segments))

    async def _drive(
        self, request: ChatCompletionRequest, choice: Handoff, deadline: float
    ) -> AsyncGenerator[Event, None]:
        """One choice, leg after leg, until the state machine is done."""
        actions, failed = choice.start(self._clock()), set[Endpoint]()
        while leg := _next_leg(actions):
            async with aclosing(self._leg(request, leg, deadline, failed)) as worker:
                async for happening in worker:
                    actions = choice.on(happening, self._clock())
                    for action in actions:
                        if isinstance(action, Emit):
                            yield action.event
                    if any(isinstance(action, StartLeg | Done) for action in actions):
                        break
            if isinstance(happening, LegFailed) and (successor := _next_leg(actions)):
                self._observe(Recovered(leg.target.name, successor.target.name))

    async def _leg(
        self, request: ChatCompletionRequest, leg: Leg, deadline: float, failed: set[Endpoint]
    ) -> AsyncGenerator[WorkerEvent | LegEnded | LegFailed, None]:
        """One worker's stream, its end or failure as a last event."""
        explain = self._explain if request.options.trace and leg.experts else None
        key = None if explain is None else uuid.uuid4().hex
        call = Call(
            leg.target.name,
            lambda: self._replicas(leg.target),
            worker_body(request, leg, key),
            deadline,
            failed,
            waits=leg.at_home and bool(leg.prefix),
        )
        try:
            async with self._pool.stream(call) as stream:
                for event in stream.head:
                    yield event
                async for event in stream.rest:
                    yield event
        except TriviumError as error:
            yield LegFailed(error, self._pool.another(call))
        else:
            if explain is not None and key is not None:
                yield Considered(await explain(stream.endpoint, key, leg.experts))
            yield LegEnded()

    def _replicas(self, target: Target) -> tuple[Endpoint, ...]:
        """Where a model answers now. An expert that was taken out writes on where it was."""
        current = self._snapshots.current
        if target.name == META:
            return current.meta
        expert = current.by_name(target.name)
        return expert.endpoints if expert else target.endpoints


def _next_leg(actions: Sequence[Action]) -> Leg | None:
    return next((action.leg for action in actions if isinstance(action, StartLeg)), None)


async def merge(streams: Sequence[AsyncGenerator[Event, None]]) -> AsyncGenerator[Event, None]:
    """Events of all streams as they come, each stream's in order. The first exception ends it."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for event in only:
                yield event
        return
    queue: asyncio.Queue[Event | BaseException | None] = asyncio.Queue(QUEUED_EVENTS)
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
    stream: AsyncGenerator[Event, None], queue: asyncio.Queue[Event | BaseException | None]
) -> None:
    """Put a stream's events into the queue, then None, or the exception that ended it."""
    last: BaseException | None = None
    try:
        async with aclosing(stream):
            async for event in stream:
                await queue.put(event)
    except Exception as error:
        last = error
    await queue.put(last)
