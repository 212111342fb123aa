"""Shutting down: no new requests, running answers finish, and then the server stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import ShuttingDown, TriviumError
from server.wire import error_response

log = logging.getLogger(__name__)

END_SECONDS = 5.0
"""For answers that were ended to tell their clients so."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
RETRY_AFTER = 5


class Drain:
    """Whether the server still takes requests, and how many it is working on."""

    def __init__(self, seconds: float = 30.0) -> None:
        """`seconds`: how long running answers may go on once the server is told to stop."""
        self._seconds = seconds
        self.begun = False
        self.running = 0
        self._idle = asyncio.Event()
        self._patience: asyncio.Timeout | None = None
        self._enders: list[Callable[[TriviumError], None]] = []

    def subscribe(self, end: Callable[[TriviumError], None]) -> None:
        """Call `end` to end answers that do not finish in time, with an error."""
        self._enders.append(end)

    def entered(self) -> None:
        self.running += 1

    def left(self) -> None:
        self.running -= 1
        if not self.running:
            self._idle.set()

    async def run(self) -> None:
        """Refuse new requests; return when none is running, or those that were have been ended."""
        self.begun = True
        if self.running:
            log.warning(
                "running requests: %d; stopping when they are over, or after %.0f s (Ctrl-C: now)",
                self.running,
                self._seconds,
            )
        if not await self._wait(self._seconds):
            error = ShuttingDown(
                "the server is being stopped before the answer was complete; ask again in a moment",
                retry_after=RETRY_AFTER,
            )
            for end in self._enders:
                end(error)
            await self._wait(END_SECONDS)

    def hurry(self) -> None:
        """Wait no longer for answers to finish."""
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(0)

    async def _wait(self, seconds: float) -> bool:
        """Whether all requests are over within `seconds`."""
        try:
            async with asyncio.timeout(seconds) as self._patience:
                while self.running:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        finally:
            self._patience = None
        return True


class Draining:
    """Middleware: counts requests, and refuses those that would begin something new."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app, self._drain = app, drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._drain.begun and scope["method"] not in SAFE_METHODS:
            error = ShuttingDown("the server is being stopped", retry_after=RETRY_AFTER)
            await error_response(error)(scope, receive, send)
            return
        self._drain.entered()
        try:
            await self._app(scope, receive, send)
        finally:
            self._drain.left()


class DrainingServer(uvicorn.Server):
    """Told to stop, it drains first. Told so again it ends running answers, and a third time it
    leaves everything as it is."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The handler of SIGINT and SIGTERM, while the loop runs."""
        if self.should_exit:
            super().handle_exit(sig, frame)
        else:
            asyncio.get_running_loop().call_soon_threadsafe(self._told_to_stop, sig)

    def _told_to_stop(self, sig: int) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain_and_exit(sig))
        else:
            self._drain.hurry()

    async def _drain_and_exit(self, sig: int) -> None:
        await self._drain.run()
        super().handle_exit(sig, None)
