"""The application: puts the parts together and owns their lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import aiohttp
from fastapi import FastAPI

from experts.coordination import coordination_of
from experts.registry import Registry
from server.api.admin import Admin, admin_router
from server.api.endpoint import BodyRoute
from server.api.openapi import install_openapi, operation_id
from server.api.routes import api_router
from server.edge.addresses import Addresses
from server.edge.admission import Admission
from server.edge.audit import AuditLog
from server.edge.guard import install_guard
from server.edge.keyring import Keyring
from server.edge.keys import KeyStore
from server.errors import TriviumError
from server.processes.owner import Relays, Settling
from server.relay.circuits import Circuits
from server.relay.connections import Connections
from server.relay.counting import TokenCounter
from server.relay.dispatch import Dispatcher
from server.relay.legs import META
from server.relay.pool import Pool, PoolOptions
from server.relay.snapshot import SnapshotHolder
from server.relay.upstream import Timeouts, Upstream, worker_session
from server.seeing.install import Seeing, alone, install_seeing
from server.seeing.observe import Observer, fan_out, unobserved
from server.seeing.trace_export import shut_down, tracer_provider
from server.services import Health, Services
from server.settings import Settings
from server.web import web_router
from server.wire import install_edge
from server.workers.draining import Drain, Draining
from server.workers.engines import LocalEngines, MakeEngines
from server.workers.fleet import Fleet
from server.workers.following import Follower
from server.workers.registration import Progress, Registrar
from server.workers.starters import register_starters
from server.workers.worker import WorkerStatus

log = logging.getLogger(__name__)


class Watcher:
    """Told what happens while the server runs; the default says nothing."""

    def worker(self, name: str, status: WorkerStatus) -> None: ...

    def registration(self, progress: Progress) -> None: ...


class _Status:
    """StatusProvider of the API, from the fleet and the registrar."""

    def __init__(self, fleet: Fleet, registrar: Registrar) -> None:
        self._fleet, self._registrar = fleet, registrar

    def health(self) -> Health:
        experts = {p.name: f"registering: {p.step}" for p in self._registrar.running()}
        return Health(self._fleet.meta_state(), experts | self._fleet.expert_states())


def create_app(
    settings: Settings,
    meta_checkpoint: Path | None,
    watcher: Watcher | None = None,
    observe: Observer = unobserved,
    relays: Relays | None = None,
    make_engines: MakeEngines = LocalEngines,
) -> FastAPI:
    """The orchestrator. `meta_checkpoint` is an expanded checkpoint, or None if the settings name
    meta workers that run elsewhere. `relays`: the other processes of this server. `make_engines`:
    who makes workers."""
    watcher, keyring, provider = watcher or Watcher(), Keyring(), tracer_provider()
    audit, drain = AuditLog(settings.audit_log), Drain(settings.drain_seconds)
    if relays is not None:
        drain = relays.drain

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        try:
            async with (
                following(settings, keyring),
                _running(
                    app,
                    settings,
                    meta_checkpoint,
                    watcher,
                    audit,
                    drain,
                    seeing,
                    observe,
                    make_engines,
                ),
                relays.running(app) if relays else contextlib.nullcontext(),
            ):
                yield
        finally:
            await asyncio.to_thread(shut_down, provider)

    app = FastAPI(
        title="Trivium",
        version=version("trivium"),
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
    )
    app.state.drain = drain
    install_openapi(app, keys_required=settings.keys_required)
    if relays is not None:
        app.add_middleware(Settling, relays=relays)
    install_guard(app, settings, keyring, audit, relays.ledger if relays else None)
    app.add_middleware(Draining, drain=drain)
    seeing = install_seeing(app, provider, relays.metrics if relays else alone)
    install_edge(app)
    app.include_router(api_router())
    app.include_router(admin_router())
    app.include_router(web_router())
    app.router.routes.sort(key=lambda route: not isinstance(route, BodyRoute))  # asked most: first
    return app


@contextlib.asynccontextmanager
async def following(settings: Settings, keyring: Keyring) -> AsyncIterator[None]:
    """The keyring in step with the database, where keys are asked for."""
    if not settings.keys_required:
        yield
        return
    store = KeyStore(settings.database)
    try:
        async with keyring.following(store):
            yield
    finally:
        store.close()


@contextlib.asynccontextmanager
async def _running(
    app: FastAPI,
    settings: Settings,
    meta_checkpoint: Path | None,
    watcher: Watcher,
    audit: AuditLog,
    drain: Drain,
    seeing: Seeing,
    observe: Observer,
    make_engines: MakeEngines,
) -> AsyncIterator[None]:
    observer = fan_out(seeing.observer, observe)
    registry, snapshots = Registry(settings.database), SnapshotHolder()
    async with ways_to_workers(settings, observer, drain) as ways:
        fleet = Fleet(
            settings, ways.session, snapshots, ways.circuits, watcher.worker, make_engines
        )
        coordination = coordination_of(settings.database)
        follower = Follower(registry, fleet, coordination)
        fleet.ask_before_repair(follower.in_step)
        registrar = Registrar(registry, fleet, ways.upstream, follower)
        registrar.subscribe(watcher.registration)
        registrar.subscribe(audit.registration)
        registrar.subscribe(seeing.metrics.registration)
        admission = Admission(settings.model_folders, ways.addresses)
        app.state.admin = Admin(registry, registrar, fleet, admission, seeing.traffic)
        app.state.services = Services(
            snapshots=snapshots,
            dispatcher=Dispatcher(
                snapshots,
                ways.pool,
                explain=fleet.explain,
                longest=settings.request_seconds,
                observer=observer,
                wake=fleet.wake,
            ),
            status=_Status(fleet, registrar),
            version=version("trivium"),
            started=int(time.time()),
            counter=TokenCounter(ways.upstream, snapshots),
            drain=drain,
        )
        follower.restore()
        fleet.start_meta(meta_checkpoint)
        tasks = [
            asyncio.create_task(_start_experts(settings, registry, registrar, fleet)),
            asyncio.create_task(follower.follow()),
        ]
        for task in tasks:
            task.add_done_callback(_log_failure)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await registrar.close()
            await fleet.close()
            await coordination.close()
            registry.close()


@dataclass(frozen=True)
class Ways:
    """How workers are asked."""

    addresses: Addresses
    session: aiohttp.ClientSession
    upstream: Upstream
    circuits: Circuits
    pool: Pool


@contextlib.asynccontextmanager
async def ways_to_workers(
    settings: Settings, observer: Observer, drain: Drain
) -> AsyncIterator[Ways]:
    """Those of one process. Answers that `drain` is tired of end."""
    addresses = Addresses(settings.worker_networks, settings.meta_bases)
    async with worker_session(addresses) as session, Connections(addresses) as connections:
        upstream = Upstream(connections)
        circuits = Circuits(upstream, observer)
        pool = Pool(upstream, circuits, pool_options(settings), observer)
        drain.subscribe(pool.end)
        try:
            yield Ways(addresses, session, upstream, circuits, pool)
        finally:
            await circuits.close()


def pool_options(settings: Settings) -> PoolOptions:
    """How patient the pool is with each class of workers."""
    meta = Timeouts(
        first_token=settings.meta_first_token_seconds, stall=settings.meta_stall_seconds
    )
    expert = Timeouts(
        first_token=settings.expert_first_token_seconds, stall=settings.expert_stall_seconds
    )
    return PoolOptions(lambda model: meta if model == META else expert, settings.hedge_seconds)


async def _start_experts(
    settings: Settings, registry: Registry, registrar: Registrar, fleet: Fleet
) -> None:
    """Start the workers of restored experts, then register new starter experts.

    The meta worker comes first: on a small machine two workers that start at once take longer
    to the first answer than one after the other.
    """
    info = await fleet.wait_meta()
    fleet.start_restored()
    for expert in registry.experts():
        if expert.choices.enabled and expert.meta != info.rows:
            try:
                await registrar.relearn(expert.name)
            except TriviumError as error:  # the others are learned all the same
                log.error(
                    "the expert %s is not called: its row for this meta LLM was not learned: %s;"
                    " disable and enable it to try again",
                    *(expert.name, error),
                )
    if settings.starter_experts:
        await register_starters(registry, registrar)


def _log_failure(task: asyncio.Task[None]) -> None:
    """An exception in a task that nobody awaits until shutdown would otherwise pass unseen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the experts cannot be kept up", exc_info=error)
