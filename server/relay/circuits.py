"""The breakers of all workers, and the probes that close them again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing

from server.errors import UpstreamError, UpstreamRejected
from server.relay.breaker import Breaker
from server.relay.snapshot import Endpoint
from server.relay.upstream import ChatUpstream
from server.seeing.happenings import BreakerChanged
from server.seeing.observe import Observer, unobserved

PROBE_SECONDS = 60.0
"""For one generated token; a busy CPU can take long."""

log = logging.getLogger(__name__)


class Circuits:
    """One breaker for each endpoint, made when it is first needed.

    While a breaker is open, a task asks its worker for one token after each back-off.
    """

    def __init__(
        self,
        upstream: ChatUpstream,
        observe: Observer = unobserved,
        clock: Callable[[], float] = time.monotonic,
        make_breaker: Callable[[], Breaker] = Breaker,
    ) -> None:
        self._upstream, self._observe = upstream, observe
        self._clock, self._make_breaker = clock, make_breaker
        self._breakers: dict[Endpoint, Breaker] = {}
        self._probers: dict[Endpoint, asyncio.Task[None]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._known: Callable[[Endpoint], bool] = lambda endpoint: True

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a breaker changes its state."""
        self._listeners.append(listener)

    def only(self, known: Callable[[Endpoint], bool]) -> None:
        """Keep breakers of `known` endpoints alone: a worker that has left may still have streams
        that fail, and nobody would ever forget a breaker that is made for it then."""
        self._known = known

    def closed(self, endpoint: Endpoint) -> bool:
        """Whether requests may go to `endpoint`."""
        breaker = self._breakers.get(endpoint)
        return breaker is None or breaker.state == "closed"

    def succeeded(self, endpoint: Endpoint) -> None:
        if breaker := self._breakers.get(endpoint):
            breaker.succeeded()

    def failed(self, endpoint: Endpoint) -> None:
        """A request failed by the worker's fault."""
        if not self._known(endpoint):
            return
        breaker = self._breakers.setdefault(endpoint, self._make_breaker())
        breaker.failed(self._clock())
        if breaker.state == "open" and endpoint not in self._probers:
            self._probers[endpoint] = asyncio.create_task(self._probe(endpoint, breaker))
            self._tell(endpoint, breaker)

    def forget(self, endpoint: Endpoint) -> None:
        """The worker at `endpoint` was started anew, or has left."""
        if prober := self._probers.pop(endpoint, None):
            prober.cancel()
        if self._breakers.pop(endpoint, None):
            self._notify()

    async def close(self) -> None:
        probers = list(self._probers.values())
        for prober in probers:
            prober.cancel()
        await asyncio.gather(*probers, return_exceptions=True)

    async def _probe(self, endpoint: Endpoint, breaker: Breaker) -> None:
        """Until one probe is answered."""
        answered = False
        while not answered:
            await asyncio.sleep(breaker.probe_at - self._clock())
            if breaker.begin_probe(self._clock()):
                self._tell(endpoint, breaker)
                answered = await self._answers(endpoint)
                breaker.probed(answered, self._clock())
                self._tell(endpoint, breaker)
        del self._probers[endpoint]

    async def _answers(self, endpoint: Endpoint) -> bool:
        """Whether a worker writes a token. One that refuses is alive, too."""
        messages = [{"role": "user", "content": "Hi"}]
        body = {"model": endpoint.model, "messages": messages, "max_tokens": 1, "stream": True}
        try:
            async with (
                asyncio.timeout(PROBE_SECONDS),
                aclosing(self._upstream.stream_chat(endpoint, body)) as events,
            ):
                async for _ in events:
                    pass
        except UpstreamRejected:
            return True
        except (UpstreamError, TimeoutError):
            return False
        return True

    def _tell(self, endpoint: Endpoint, breaker: Breaker) -> None:
        log.warning("worker %s: its breaker is %s", endpoint.base_url, breaker.state)
        self._observe(BreakerChanged(endpoint, breaker.state))
        self._notify()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()
