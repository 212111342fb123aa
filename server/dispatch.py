"""The async driver: carries out what `handoff` decides, for every choice of a request."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

from server.errors import UpstreamError
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
from server.legs import Leg, make_plan, worker_body
from server.observe import Observer, Watch, unobserved
from server.schemas import ChatCompletionRequest
from server.snapshot import LiveExpert, SnapshotHolder
from server.upstream import ChatUpstream

QUEUED_EVENTS = 64
"""Events that wait for the client when several choices are merged; then the workers wait."""


Explain = Callable[[str, Sequence[LiveExpert]], Awaitable[Mapping[str, float]]]
"""The probabilities of experts in the request that the meta worker explains under a key."""


class Dispatcher:
    """Turns requests into event streams. Keeps nothing from one request to the next."""

    def __init__(
        self,
        snapshots: SnapshotHolder,
        upstream: ChatUpstream,
        clock: Callable[[], float] = time.monotonic,
        explain: Explain | None = None,
        observer: Observer = unobserved,
    ) -> None:
        self._snapshots = snapshots
        self._upstream = upstream
        self._clock = clock
        self._explain = explain
        self._observer = observer

    async def run(self, request: ChatCompletionRequest) -> AsyncGenerator[Event, None]:
        """The events of the whole answer; closing the generator aborts every worker's request.

        Raises UnknownModel or NotReady before the first event; later faults come as `Failed`.
        """
        began = self._clock()
        watch = Watch(self._observer, self._clock, request.model)
        with watch.request(), self._snapshots.lease() as snapshot:
            plan = make_plan(request, snapshot)
            choices = [Handoff(plan, index, began) for index in range(request.choices)]
            watch.choices, watch.usage = choices, lambda: total_usage(choices)
            async with aclosing(merge([self._drive(request, c, watch) for c in choices])) as events:
                async for event in events:
                    if event.kind == "failed":
                        watch.error = event.error
                        yield event
                        return
                    yield event
        yield watch.usage()
        if request.options.trace:
            yield Traced(tuple(segment for choice in choices for segment in choice.segments))

    async def _drive(
        self, request: ChatCompletionRequest, choice: Handoff, watch: Watch
    ) -> AsyncGenerator[Event, None]:
        """One choice, leg after leg, until the state machine is done."""
        actions = choice.start(self._clock())
        while leg := _next_leg(actions):
            with watch.leg(choice, leg):
                async with aclosing(self._leg(request, leg)) as worker:
                    async for happening in worker:
                        actions = choice.on(happening, self._clock())
                        for action in actions:
                            if isinstance(action, Emit):
                                yield action.event
                        if any(isinstance(action, StartLeg | Done) for action in actions):
                            break

    async def _leg(
        self, request: ChatCompletionRequest, leg: Leg
    ) -> AsyncGenerator[WorkerEvent | LegEnded | LegFailed, None]:
        """One worker's stream, its end or failure as a last event."""
        explain = self._explain if request.options.trace and leg.experts else None
        key = None if explain is None else uuid.uuid4().hex
        body = worker_body(request, leg, key)
        try:
            async with aclosing(self._upstream.stream_chat(leg.target.endpoint, body)) as events:
                async for event in events:
                    yield event
        except UpstreamError as error:
            yield LegFailed(error)
        else:
            if explain is not None and key is not None:
                yield Considered(await explain(key, leg.experts))
            yield LegEnded()


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
