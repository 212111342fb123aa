"""A relay: a process that answers with the models which the owner tells it of, and has no others.

`python -m server.processes.relay`, started by the owner with its `Orders` on standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import count

import msgspec
from fastapi import FastAPI

from server.api.routes import api_router
from server.app import following, ways_to_workers
from server.edge.audit import AuditLog
from server.edge.guard import install_guard
from server.edge.keyring import Keyring
from server.edge.ledger import SharedLedger
from server.garbage import collect_seldom
from server.processes.forward import Forwarding, OwnersDoor
from server.processes.listening import public_config, shared_socket
from server.processes.messages import (
    Channel,
    Explain,
    Explained,
    Holds,
    Orders,
    State,
    Stop,
    Tell,
    Told,
    ToRelay,
    relays_channel,
)
from server.relay.circuits import Circuits
from server.relay.counting import TokenCounter
from server.relay.dispatch import Dispatcher
from server.relay.snapshot import Endpoint, LiveExpert, Snapshot, SnapshotHolder
from server.seeing.install import Seeing, install_seeing
from server.seeing.logs import log_to_stderr
from server.seeing.trace_export import shut_down, tracer_provider
from server.services import Health, Services
from server.settings import Settings
from server.wire import install_edge
from server.workers.draining import Drain, Draining, DrainingServer

log = logging.getLogger(__name__)


def main() -> None:
    """Serve until the owner says stop, or ends."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=Orders)
    settings = Settings(**orders.settings)
    log_to_stderr(settings.log_format)
    try:
        listening = shared_socket(settings)
    except OSError as error:
        sys.exit(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}")
    relay = Relay(settings, orders)
    collect_seldom()
    relay.server.run(sockets=[listening])


class Relay:
    """The parts of one relay."""

    def __init__(self, settings: Settings, orders: Orders) -> None:
        self._settings, self._orders = settings, orders
        self._provider, self._keyring = tracer_provider(), Keyring()
        self._drain = Drain(settings.drain_seconds)
        self._door = OwnersDoor(orders.owner)
        self.app = FastAPI(lifespan=self._lifespan, openapi_url=None)
        audit = AuditLog(settings.audit_log)
        ledger = SharedLedger(orders.ledger, orders.place)
        install_guard(self.app, settings, self._keyring, audit, ledger)
        self.app.add_middleware(Draining, drain=self._drain)
        self._seeing: Seeing = install_seeing(self.app, self._provider)
        self.app.add_middleware(Forwarding, door=self._door, drain=self._drain)
        install_edge(self.app)
        self.app.include_router(api_router())
        self.server = DrainingServer(public_config(self.app, settings), self._drain)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        channel = await relays_channel(socket.socket(fileno=self._orders.control))
        try:
            async with (
                following(self._settings, self._keyring),
                self._door.open(),
                self._answering(app, channel),
            ):
                yield
        finally:
            await asyncio.to_thread(shut_down, self._provider)

    @contextlib.asynccontextmanager
    async def _answering(self, app: FastAPI, channel: Channel[ToRelay]) -> AsyncIterator[None]:
        settings, observer = self._settings, self._seeing.observer
        snapshots = SnapshotHolder()
        async with ways_to_workers(settings, observer, self._drain) as ways:
            owner = Owner(channel, snapshots, ways.circuits, self._seeing, self._stop)
            app.state.services = Services(
                snapshots=snapshots,
                dispatcher=Dispatcher(
                    snapshots,
                    ways.pool,
                    explain=owner.explain,
                    longest=settings.request_seconds,
                    observer=observer,
                ),
                status=owner,
                version=version("trivium"),
                started=self._orders.started,
                counter=TokenCounter(ways.upstream, snapshots),
                drain=self._drain,
            )
            listening = asyncio.create_task(owner.listen())
            await owner.heard.wait()
            try:
                yield
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    def _stop(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)


class Owner:
    """The owner, as its relay sees it: who says what is live. StatusProvider of the API."""

    def __init__(
        self,
        channel: Channel[ToRelay],
        snapshots: SnapshotHolder,
        circuits: Circuits,
        seeing: Seeing,
        stop: Callable[[], None],
    ) -> None:
        """`stop` is called each time that the owner says so."""
        self._channel, self._snapshots, self._circuits = channel, snapshots, circuits
        self._seeing, self._stop = seeing, stop
        self._state = State(0, Snapshot(0), Health("starting"))
        self.heard = asyncio.Event()
        """The first state has come."""
        self._ids = count()
        self._asked: dict[int, asyncio.Future[Mapping[str, float]]] = {}
        circuits.subscribe(self._follow)
        circuits.only(lambda endpoint: endpoint in _endpoints(self._state.snapshot))
        snapshots.subscribe(self._hold)

    def health(self) -> Health:
        return self._state.health

    async def listen(self) -> None:
        """Do what the owner says. Ends the process when the owner has ended: what it had is gone,
        and its port must be free."""
        try:
            async for message in self._channel.messages():
                self._on(message)
        except Exception:
            log.exception("what the owner said could not be carried out")
        os._exit(1)

    async def explain(
        self, endpoint: Endpoint, key: str, experts: Sequence[LiveExpert]
    ) -> Mapping[str, float]:
        """See `Fleet.explain`."""
        id = next(self._ids)
        answer: asyncio.Future[Mapping[str, float]] = asyncio.get_running_loop().create_future()
        self._asked[id] = answer
        self._channel.send(Explain(id, endpoint, key, list(experts)))
        try:
            return await answer
        finally:
            del self._asked[id]

    def _on(self, message: ToRelay) -> None:
        match message:
            case State():
                self._forgive(message.snapshot)
                self._state = message
                self._follow()
                self.heard.set()
            case Stop():
                self._stop()
            case Tell():
                self._channel.send(Told(self._seeing.metrics.families()))
            case Explained():
                if (answer := self._asked.get(message.id)) and not answer.done():
                    answer.set_result(message.chances)

    def _forgive(self, new: Snapshot) -> None:
        """Workers that have come up, or left, start with a closed breaker."""
        for endpoint in _endpoints(new) ^ _endpoints(self._state.snapshot):
            self._circuits.forget(endpoint)

    def _follow(self) -> None:
        """The owner's snapshot without workers whose breaker is open here."""
        told, closed = self._state.snapshot, self._circuits.closed
        meta = tuple(e for e in told.meta if closed(e))
        live = [replace(e, endpoints=tuple(filter(closed, e.endpoints))) for e in told.experts]
        experts = tuple(e for e in live if e.endpoints) if meta else ()
        self._snapshots.follow(Snapshot(told.version, meta, experts))

    def _hold(self) -> None:
        self._channel.send(Holds(self._state.number, self._snapshots.versions()))


def _endpoints(snapshot: Snapshot) -> set[Endpoint]:
    return {*snapshot.meta, *(e for expert in snapshot.experts for e in expert.endpoints)}


if __name__ == "__main__":
    main()
