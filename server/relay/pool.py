"""Between dispatch and the workers: picks a replica for each leg, and another one if it fails
before its first token.

What fails later is the affair of `handoff`, which resumes. Nothing is done for each event: once
a worker has begun to write, its stream is handed on as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from server.errors import (
    DeadlineExceeded,
    NotReady,
    TriviumError,
    UpstreamBusy,
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
)
from server.relay.balance import answer_tokens, choose, conversation_of, prompt_tokens
from server.relay.circuits import Circuits
from server.relay.events import WorkerBatch, WorkerEvent
from server.relay.snapshot import Endpoint
from server.relay.upstream import Timeouts, Upstream
from server.seeing.happenings import Hedged, Retried
from server.seeing.observe import Observer, unobserved

FIRST_PAUSE, LAST_PAUSE = 0.05, 2.0
"""Seconds between two rounds over the replicas of a model that is waited for."""
LATENESS = 0.001
"""Seconds by which timers are set later than the deadline: when they fire, it has passed."""


@dataclass(frozen=True)
class PoolOptions:
    """`hedge`: seconds without a first token after which a second replica is asked, too; None:
    never. `resume`: how long an answer that has begun waits for its model to come back (s)."""

    timeouts: Callable[[str], Timeouts] = lambda model: Timeouts()
    """By the target's name: "meta" or the expert's."""
    hedge: float | None = None
    resume: float = 120.0


@dataclass(frozen=True)
class Call:
    """One leg on its way to a worker."""

    model: str
    """The target's name: "meta" or the expert's."""
    replicas: Callable[[], Sequence[Endpoint]]
    """Where it answers now."""
    body: Mapping[str, Any]
    path: str
    """Behind the base URL, e.g. `/chat/completions`."""
    deadline: float
    """Of the whole request, on the pool's clock (s)."""
    failed: set[Endpoint] = field(default_factory=set)
    """Replicas that failed in this answer. The same set for all its legs; the pool adds to it."""
    waits: bool = False
    """Part of the answer is with the client: if no replica can go on, one is waited for."""


@dataclass(frozen=True)
class Stream:
    """A worker's answer that has begun: `head`, up to the first token, then `rest`."""

    endpoint: Endpoint
    head: Sequence[WorkerEvent]
    rest: AsyncGenerator[WorkerBatch, None]
    tokens: int
    """How much work it counts for at its replica."""


class Pool:
    """The way to the workers. Owner of how busy each replica is."""

    def __init__(
        self,
        upstream: Upstream,
        circuits: Circuits,
        options: PoolOptions | None = None,
        observe: Observer = unobserved,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream, self._circuits = upstream, circuits
        self._options, self._observe, self._clock = options or PoolOptions(), observe, clock
        self._outstanding: Counter[Endpoint] = Counter()
        self._beginning: set[asyncio.Timeout] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._ended: TriviumError | None = None

    def another(self, call: Call) -> bool:
        """Whether a replica can be asked that has not failed in this answer."""
        return self._pick(call, call.failed) is not None

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[Stream]:
        """A replica's answer, begun. Whoever reads it lets its errors pass through here.

        Raises UpstreamError, DeadlineExceeded among them; NotReady if no replica can be asked;
        and what `end` was told.
        """
        stream = await self._begin(call)
        try:
            yield stream
        except UpstreamError as error:
            raise self._failed(call, stream.endpoint, error) from None
        else:
            self._circuits.succeeded(stream.endpoint)
        finally:
            await self._leave(stream)

    def end(self, error: TriviumError) -> None:
        """End every running answer with `error`, and refuse others."""
        self._ended = error
        self._upstream.cut(error)
        for patience in self._beginning:
            if not patience.expired():
                patience.reschedule(0)

    # ------------------------------------------------------------ one replica after the other

    async def _begin(self, call: Call) -> Stream:
        """Ask replicas until one begins to write."""
        away = NotReady(f"no worker of {call.model!r} can be asked now; try again in a moment")
        error: TriviumError = away
        pause, patience = FIRST_PAUSE, self._clock() + self._options.resume
        while True:
            if self._ended is not None:
                raise self._ended
            endpoint = self._pick(call, call.failed)
            if endpoint is not None:
                try:
                    return await self._ask(call, endpoint)
                except (UpstreamFailed, UpstreamTimeout, UpstreamBusy) as failure:
                    if isinstance(failure, DeadlineExceeded):
                        raise
                    error = failure
                if self.another(call):
                    self._observe(Retried(call.model, type(error).__name__))
            elif call.waits and self._clock() < min(patience, call.deadline):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
                call.failed.difference_update(call.replicas())
            else:
                raise away if call.waits else error

    def _pick(self, call: Call, without: Collection[Endpoint]) -> Endpoint | None:
        awake = (e for e in call.replicas() if not e.asleep)
        usable = [e for e in awake if e not in without and self._circuits.closed(e)]
        if len(usable) < 2:
            return usable[0] if usable else None
        return choose(usable, self._outstanding, conversation_of(call.body))

    async def _ask(self, call: Call, endpoint: Endpoint) -> Stream:
        if self._options.hedge is None:
            return await self._attempt(call, endpoint)
        return await self._hedged(call, endpoint, self._options.hedge)

    async def _attempt(self, call: Call, endpoint: Endpoint) -> Stream:
        """Ask one replica, and wait for its first token."""
        timeouts = self._options.timeouts(call.model)
        left = max(0.0, call.deadline - self._clock()) + LATENESS
        prompt, answer = prompt_tokens(call.body), answer_tokens(call.body)
        events = self._upstream.stream_chat(endpoint, call.body, call.path, timeouts, total=left)
        self._outstanding[endpoint] += prompt + answer
        try:
            async with asyncio.timeout(min(timeouts.first_token, left)) as patience:
                self._beginning.add(patience)
                try:
                    head = await _to_first_token(events)
                finally:
                    self._beginning.discard(patience)
        except BaseException as error:
            await self._leave(Stream(endpoint, (), events, prompt + answer))
            if isinstance(error, TimeoutError):
                error = UpstreamTimeout("the model's server did not begin to answer in time")
            if isinstance(error, UpstreamError):
                raise self._failed(call, endpoint, error) from None
            raise
        self._outstanding[endpoint] -= prompt
        return Stream(endpoint, head, events, answer)

    def _failed(self, call: Call, endpoint: Endpoint, error: UpstreamError) -> TriviumError:
        """Take note of a failure; what it means for the request."""
        if self._ended is not None:
            return self._ended
        if isinstance(error, UpstreamTimeout) and self._clock() >= call.deadline:
            return DeadlineExceeded("the answer took longer than the request's time allows")
        if isinstance(error, UpstreamFailed | UpstreamTimeout):
            self._circuits.failed(endpoint)
        if isinstance(error, UpstreamFailed | UpstreamTimeout | UpstreamBusy):
            call.failed.add(endpoint)
        return error

    async def _leave(self, stream: Stream) -> None:
        self._outstanding[stream.endpoint] -= stream.tokens
        if not self._outstanding[stream.endpoint]:
            del self._outstanding[stream.endpoint]
        await stream.rest.aclose()

    # ------------------------------------------------------------ two replicas at once

    async def _hedged(self, call: Call, endpoint: Endpoint, seconds: float) -> Stream:
        """Ask a second replica if the first is slow to begin; the first to write wins."""
        first = asyncio.create_task(self._attempt(call, endpoint))
        racing = {first}
        try:
            await asyncio.wait(racing, timeout=seconds)
            other = None if first.done() else self._pick(call, {endpoint, *call.failed})
            if other is not None:
                racing.add(asyncio.create_task(self._attempt(call, other)))
            winner = await _first_success(racing)
            racing.discard(winner)
            if other is not None:
                self._observe(Hedged(call.model, winner is not first))
            return winner.result()
        finally:
            for attempt in racing:
                attempt.cancel()
                attempt.add_done_callback(self._close_loser)

    def _close_loser(self, attempt: asyncio.Task[Stream]) -> None:
        """One that began to write before it was told to stop."""
        if not attempt.cancelled() and attempt.exception() is None:
            closing = asyncio.create_task(self._leave(attempt.result()))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


async def _first_success(attempts: Collection[asyncio.Task[Stream]]) -> asyncio.Task[Stream]:
    """The attempt that succeeds first, or one that failed if all did."""
    running = set(attempts)
    while True:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        good = [attempt for attempt in done if attempt.exception() is None]
        if good or not running:
            return (good or [*done])[0]


async def _to_first_token(batches: AsyncGenerator[WorkerBatch, None]) -> list[WorkerEvent]:
    """Events up to the first batch that has more than counts of tokens."""
    head: list[WorkerEvent] = []
    async for batch in batches:
        head += batch
        if any(event.kind != "usage" for event in batch):
            break
    return head
