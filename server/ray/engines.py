"""Workers that the cluster places: the fleet's view of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp

from experts.manifest import ExternalWorker as ExternalSpec
from experts.manifest import ManagedWorker as ManagedSpec
from server.ray.placement import Cluster, Placed
from server.relay.snapshot import Endpoint
from server.settings import Settings
from server.workers.engines import LocalEngines, MetaSet
from server.workers.replicas import Moving, replica_name
from server.workers.worker import (
    ExternalWorker,
    ManagedWorker,
    OnChange,
    Worker,
    WorkerFailed,
    WorkerStatus,
)

LOOK_SECONDS = 1.0
"""Pause between two looks at where replicas are."""
DEPLOY_AGAIN_SECONDS = 5.0
END_SECONDS = 30.0
"""That a deployment under way may take, when the expert is to go."""

log = logging.getLogger(__name__)


class Announced(ExternalWorker):
    """One replica. Once it has answered, its own node says whether it lives: under load a probe
    may be late, and would take out one that works."""

    async def _run(self) -> None:
        while (endpoint := await self._probe()) is None:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
        self._set(WorkerStatus("live"), endpoint)


class PlacedWorker:
    """An expert's replicas on the cluster, as many as it keeps; asleep when it keeps none.

    Each orchestrator has one; that several deploy the same expert makes no difference.
    """

    bank = None

    def __init__(
        self,
        name: str,
        spec: ManagedSpec,
        cluster: Cluster,
        external: Callable[[str, str, str, OnChange], ExternalWorker],
        on_change: OnChange,
    ) -> None:
        """`external` watches a replica: its name, its URL with /v1, the model, whom to tell."""
        self.name = name
        self._spec, self._cluster = spec, cluster
        self._on_change = on_change
        self._replicas = Moving(
            name, lambda replica, url: external(replica, f"{url}/v1", name, self._note)
        )
        self._placed = Placed()
        self._told: tuple[WorkerStatus, tuple[Endpoint, ...]] = (WorkerStatus("starting"), ())
        self._changed = asyncio.Event()
        self._deploying: asyncio.Task[None] | None = None
        self.unwanted = True
        """Whether `stop` means that the expert is not to be there any more."""
        self.running = False
        self._over = asyncio.Event()

    @property
    def status(self) -> WorkerStatus:
        return self._told[0]

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._told[1]

    def start(self) -> None:
        self.running = True
        self._deploying = asyncio.create_task(self._deploy())

    async def ready(self) -> tuple[Endpoint, ...]:
        while True:
            if self.status.state in ("failed", "stopped"):
                raise WorkerFailed(f"worker {self.name!r} {self.status}")
            awake = tuple(e for e in self.endpoints if not e.asleep)
            if awake:
                return awake
            self._changed.clear()
            await self._changed.wait()

    async def wake(self) -> None:
        """Have a replica started, and wait until it can be asked. Raises WorkerFailed."""
        try:
            await self._cluster.wake(self.name)
        except Exception as error:  # whatever Ray's replica raised
            raise WorkerFailed(f"worker {self.name!r} does not wake up: {error}") from error
        await self.ready()

    async def stop(self) -> None:
        self.running = False
        self._over.set()
        if self._deploying is not None:  # what is under way would come after the end
            await asyncio.wait({self._deploying}, timeout=END_SECONDS)
            self._deploying.cancel()
        await self._replicas.follow(())
        try:
            if self.unwanted:
                await self._cluster.delete(self.name)
        except Exception as error:  # Ray's, of many kinds
            log.warning("the expert %s may still be on the cluster: %s", self.name, error)
        finally:
            self._tell(WorkerStatus("stopped"), ())

    async def follow(self, placed: Placed) -> None:
        """Take in how the cluster has it now."""
        self._placed = placed
        if self._deploying is not None and self._deploying.done():
            if not placed.deployed:  # somebody else removed it
                self._deploying = asyncio.create_task(self._deploy())
            elif placed.reason:
                self._deploying = asyncio.create_task(self._deploy(DEPLOY_AGAIN_SECONDS))
        await self._replicas.follow(placed.urls)
        self._note(None)

    def _note(self, _: Worker | None) -> None:
        """Say how all replicas together are."""
        if not self.running:
            return
        endpoints = self._replicas.endpoints
        if endpoints:
            self._tell(WorkerStatus("live", _count(len(endpoints))), endpoints)
        elif self._asleep():
            self._tell(WorkerStatus("live", "asleep"), (Endpoint("", self.name, asleep=True),))
        elif self._placed.reason:
            self._tell(WorkerStatus("failed", self._placed.reason), ())
        else:
            self._tell(WorkerStatus("starting"), ())

    def _asleep(self) -> bool:
        """Also while it wakes: who asks waits for it."""
        may_sleep = self._spec.min_replicas == 0 and not self._placed.reason
        was_up = self._told[0].state == "live"
        return may_sleep and self._placed.deployed and (was_up or not self._placed.wanted)

    def _tell(self, status: WorkerStatus, endpoints: tuple[Endpoint, ...]) -> None:
        if (status, endpoints) == self._told:
            return
        self._told = status, endpoints
        self._changed.set()
        self._on_change(self)

    async def _deploy(self, pause: float = 0.0) -> None:
        """After `pause` seconds, and again until the cluster has taken it."""
        await self._pause(pause)
        while self.running:
            try:
                await self._cluster.deploy(self.name, self._spec)
            except Exception as error:  # Ray's, of many kinds; it is tried again
                log.warning("the expert %s cannot be deployed yet: %s", self.name, error)
                await self._pause(DEPLOY_AGAIN_SECONDS)
            else:
                return

    async def _pause(self, seconds: float) -> None:
        """Shorter where the expert is to go."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)


class ClusterEngines:
    """Engines whose workers the cluster places. Experts that manifests name by URL are watched as
    everywhere."""

    has_banks = False

    def __init__(
        self, settings: Settings, session: aiohttp.ClientSession, cluster: Cluster
    ) -> None:
        self._settings, self._session, self._cluster = settings, session, cluster
        self._local = LocalEngines(settings, session)
        self._experts: list[PlacedWorker] = []
        self._metas: dict[str, ExternalWorker] = {}
        self._meta_number = 0
        self._looking: asyncio.Task[None] | None = None

    def metas(self, checkpoint: Path | None, into: MetaSet, on_change: OnChange) -> None:
        """Those that the cluster has, while it has them."""
        self._looking = asyncio.create_task(self._look(into, on_change))

    def expert(self, name: str, spec: ManagedSpec | ExternalSpec, on_change: OnChange) -> Worker:
        if not isinstance(spec, ManagedSpec):
            return self._local.expert(name, spec, on_change)
        worker = PlacedWorker(name, spec, self._cluster, self._external, on_change)
        self._experts.append(worker)
        return worker

    def bank(self, name: str, base: Path, on_change: OnChange) -> ManagedWorker:
        raise NotImplementedError("on a cluster each expert has workers of its own")

    async def close(self) -> None:
        """What is on the cluster stays there, for other orchestrators and for the next start."""
        for expert in self._experts:
            expert.unwanted = False
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _external(self, name: str, url: str, model: str, on_change: OnChange) -> ExternalWorker:
        every = self._settings.probe_seconds
        return Announced(name, url, model, self._session, on_change, every)

    async def _look(self, into: MetaSet, on_change: OnChange) -> None:
        """Follow the cluster, until cancelled. While it cannot say, what is known goes on."""
        reachable = True
        while True:
            try:
                placed = await self._cluster.placed()
                await self._follow(placed, into, on_change)
            except Exception as error:  # Ray's, of many kinds
                if reachable:
                    log.warning("the cluster does not say where replicas are: %r", error)
                reachable = False
            else:
                reachable = True
            await asyncio.sleep(LOOK_SECONDS)

    async def _follow(
        self, placed: Mapping[str, Placed], into: MetaSet, on_change: OnChange
    ) -> None:
        urls = placed.get("meta", Placed()).urls
        for url in urls:
            if url not in self._metas:
                self._meta_number += 1
                name = replica_name("meta", self._meta_number)
                model = self._settings.meta_model
                self._metas[url] = self._external(name, f"{url}/v1", model, on_change)
                into.add(self._metas[url])
        for url in [*self._metas]:
            if url not in urls:
                await into.remove(self._metas.pop(url))
        self._experts = [e for e in self._experts if e.status.state != "stopped"]
        for expert in self._experts:
            if expert.running:
                await expert.follow(placed.get(expert.name, Placed()))


def _count(replicas: int) -> str:
    return f"{replicas} replicas" if replicas > 1 else ""
