"""In the owner: the relays, started, told what is live, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.edge.auth import ADMIN_PATH
from server.edge.ledger import SharedLedger
from server.processes.link import Explainer, Link
from server.processes.listening import SHUTDOWN_SECONDS, Unsignalled, owners_config
from server.processes.messages import Orders, State, owners_channel
from server.seeing.sums import LASTING, Family, Sum
from server.services import Services
from server.settings import Settings
from server.workers.draining import END_SECONDS, SAFE_METHODS, Drain
from server.workers.worker import die_with_parent

LOOK_SECONDS = 0.25
"""Between two looks whether what is said of the models' health has changed."""
REPORT_SECONDS = 1.0
"""For a relay to say its metrics; of one that is slower the last ones count."""
SETTLE_SECONDS = 1.0
"""For relays to follow, before an answer of the admin API goes out."""
FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0
STEADY_SECONDS = 60.0
"""A relay that lived so long is started again without having failed before."""

log = logging.getLogger(__name__)


class Relays:
    """The owner's relays. Each is a process that is started again when it ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.ledger = SharedLedger.make()
        self.drain = SharedDrain(settings.drain_seconds, self)
        self._links: dict[int, Link] = {}
        """By place, of the processes that run."""
        self._gone = Sum()
        """What relays that have ended counted."""
        self._services: Services | None = None
        self._state: State | None = None
        self._news, self._stopping = asyncio.Event(), asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Relays beside `app`, which answers what they forward; it has its `Services` and its
        `Admin` already."""
        services, explain = app.state.services, app.state.admin.fleet.explain
        self._services = services
        services.snapshots.subscribe(self._news.set)
        services.snapshots.ask_also(self._may_use)
        with tempfile.TemporaryDirectory(prefix="trivium-") as folder:  # for its owner alone
            path = Path(folder) / "owner"  # the path of a socket must be short
            async with _serving(Unsignalled(owners_config(app, path))):
                places = range(1, self._settings.workers)
                orders = [self._orders(place, path) for place in places]
                self._keepers = [asyncio.create_task(self._keep(o, explain)) for o in orders]
                telling = asyncio.create_task(self._tell())
                try:
                    yield
                finally:
                    await _cancelled(telling, *self._keepers)

    async def metrics(self) -> Iterable[Family]:
        """Those of all relays, those that have ended included."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPORT_SECONDS):
                await asyncio.gather(*(link.report() for link in self._begun()))
        # One that has ended meanwhile is not a link any more, but gone.
        return [*self._gone.families(), *(f for link in self._links.values() for f in link.metrics)]

    async def settled(self) -> None:
        """Wait until every relay has the present state, but not for long."""
        self._look()
        assert self._state is not None
        number = self._state.number
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await asyncio.gather(*(link.follows(number) for link in self._begun()))

    async def stop(self) -> None:
        """Let every relay finish its answers and end; return when all have."""
        self._stopping.set()
        self.hurry()
        patience = self._settings.drain_seconds + END_SECONDS + SHUTDOWN_SECONDS
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=patience)

    def hurry(self) -> None:
        """Say stop once more."""
        for link in self._links.values():
            link.stop()

    # ------------------------------------------------------------ what they are told

    async def _tell(self) -> None:
        """Tell the relays of every change."""
        while True:
            self._look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), LOOK_SECONDS)
            self._news.clear()

    def _look(self) -> None:
        assert self._services is not None
        snapshot, health = self._services.snapshots.current, self._services.status.health()
        known = self._state
        if known is None or (known.snapshot.version, known.health) != (snapshot.version, health):
            self._state = State(known.number + 1 if known else 1, snapshot, health)
            for link in self._links.values():
                link.tell(self._state)

    def _begun(self) -> list[Link]:
        return [link for link in self._links.values() if link.begun]

    def _may_use(self, token_id: int) -> bool:
        return any(link.may_use(token_id) for link in self._links.values())

    # ------------------------------------------------------------ their processes

    def _orders(self, place: int, path: Path) -> Orders:
        assert self._services is not None
        settings = self._settings.model_dump(mode="json")
        return Orders(settings, place, self._services.started, str(path), -1, -1)

    async def _keep(self, orders: Orders, explain: Explainer) -> None:
        """One relay after the other, until there shall be none."""
        failures = 0
        while not self._stopping.is_set():
            began, status = time.monotonic(), None
            try:
                status = await self._run(orders, explain)
            except Exception:
                log.exception("a process of the server could not be started or talked to")
            if self._stopping.is_set():
                return
            failures = 0 if time.monotonic() - began > STEADY_SECONDS else failures + 1
            pause = min(FIRST_BACKOFF * 2 ** max(0, failures - 1), LAST_BACKOFF)
            log.warning(
                "a process of the server ended with status %s; another takes its place in %.1f s",
                status,
                pause,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run(self, orders: Orders, explain: Explainer) -> int | None:
        """One relay, from start to end; its exit status."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await self._start(orders, theirs)
        link = Link(await owners_channel(ours), explain)
        try:
            self._links[orders.place] = link
            if self._state is not None:
                link.tell(self._state)
            if self._stopping.is_set():
                link.stop()
            await link.listen()
        finally:
            del self._links[orders.place]
            self._gone.add(family for family in link.metrics if family.type in LASTING)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            with self.ledger.locked():
                self.ledger.forget(orders.place)
        return process.returncode

    async def _start(self, orders: Orders, end: socket.socket) -> asyncio.subprocess.Process:
        descriptors = end.fileno(), self.ledger.descriptor
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "server.processes.relay"),  # -P: not from this folder
            stdin=asyncio.subprocess.PIPE,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for the owner, which tells them
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )
        control, ledger = descriptors
        mine = msgspec.structs.replace(orders, control=control, ledger=ledger)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(mine))
        process.stdin.close()
        return process


class SharedDrain(Drain):
    """The draining of the owner, which ends when its relays have ended, too."""

    def __init__(self, seconds: float, relays: Relays) -> None:
        super().__init__(seconds)
        self._relays = relays

    async def run(self) -> None:
        await asyncio.gather(super().run(), self._relays.stop())

    def hurry(self) -> None:
        super().hurry()
        self._relays.hurry()


class Settling:
    """Middleware: an answer of the admin API that changed something goes out when it is so in
    every process."""

    def __init__(self, app: ASGIApp, relays: Relays) -> None:
        self._app, self._relays = app, relays

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or not scope["path"].startswith(ADMIN_PATH)
            or scope["method"] in SAFE_METHODS
        ):
            await self._app(scope, receive, send)
            return

        async def send_when_settled(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._relays.settled()
            await send(message)

        await self._app(scope, receive, send_when_settled)


@contextlib.asynccontextmanager
async def _serving(server: Unsignalled) -> AsyncIterator[None]:
    """A further server of this process."""
    task = asyncio.create_task(server.serve())
    while not server.started and not task.done():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    if task.done():
        task.result()
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
