"""Who makes workers: the model servers of this machine's settings, made here, not started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import aiohttp

from experts.manifest import ExternalWorker as ExternalSpec
from experts.manifest import ManagedWorker as ManagedSpec
from server.settings import Settings
from server.workers.replicas import AtEachAddress, Replicas, replica_name
from server.workers.vllm_command import (
    Command,
    bank_command,
    expert_command,
    meta_command,
    this_machine,
)
from server.workers.worker import Absent, ExternalWorker, ManagedWorker, OnChange, Worker

CPU_PLACES, GPU_PLACES = 64, 8
"""Experts that a step of a bank may have. On a CPU a place refers to weights that are in memory
anyway; on a GPU it holds a copy."""


class MetaSet(Protocol):
    """The meta workers that there are."""

    def add(self, worker: Worker) -> None:
        """Start, or start to watch, one more."""
        ...

    async def remove(self, worker: Worker) -> None:
        """One is gone for good: use it no longer."""
        ...


class Engines(Protocol):
    """Makes workers; `on_change` is told of every change of a worker's state."""

    has_banks: bool
    """Ternary experts share processes here."""

    def metas(self, checkpoint: Path | None, into: MetaSet, on_change: OnChange) -> None:
        """Put the meta workers into the set, and keep it true; `checkpoint` None: they run
        elsewhere."""
        ...

    def expert(self, name: str, spec: ManagedSpec | ExternalSpec, on_change: OnChange) -> Worker:
        """The worker of one expert, or its workers in one."""
        ...

    def bank(self, name: str, base: Path, on_change: OnChange) -> ManagedWorker:
        """The worker of a bank. Its own model has a name that no expert can have."""
        ...

    async def close(self) -> None:
        """The server stops; workers that are stopped from now on are not unwanted."""
        ...


MakeEngines = Callable[[Settings, aiohttp.ClientSession], Engines]


class LocalEngines:
    """Workers on this machine, and those that settings and manifests name by URL."""

    has_banks = True

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._settings, self._session = settings, session
        self._machine = this_machine()
        # vLLM takes all that changes on a GPU while it starts for its own doing.
        self._starting = asyncio.Lock() if self._machine.gpu else None

    def metas(self, checkpoint: Path | None, into: MetaSet, on_change: OnChange) -> None:
        """The meta workers; `checkpoint` None: they run elsewhere."""
        for worker in self._metas(checkpoint, on_change):
            into.add(worker)

    def _metas(self, checkpoint: Path | None, on_change: OnChange) -> list[Worker]:
        settings = self._settings
        if checkpoint is None:
            bases = enumerate(settings.meta_bases, 1)
            model = settings.meta_model
            return [
                self._external(replica_name("meta", number), f"{base}/v1", model, on_change)
                for number, base in bases
            ]

        def command(port: int) -> Command:
            return meta_command(checkpoint, port, settings.meta_args, self._machine)

        return self._replicas("meta", command, settings.meta_replicas, on_change)

    def expert(self, name: str, spec: ManagedSpec | ExternalSpec, on_change: OnChange) -> Worker:
        """The worker of one expert, or its workers in one."""
        if not isinstance(spec, ManagedSpec):
            if spec.each_address:

                def external(replica: str, url: str) -> Worker:
                    return self._external(replica, url, spec.model, on_change, spec)

                return AtEachAddress(name, spec.bases[0], external, self._settings.probe_seconds)
            workers = [
                self._external(replica_name(name, number), base, spec.model, on_change, spec)
                for number, base in enumerate(spec.bases, 1)
            ]
            return workers[0] if len(workers) == 1 else Replicas(name, workers)

        if not spec.checkpoint.is_dir():
            return Absent(name, spec.checkpoint, on_change)

        def command(port: int) -> Command:
            return expert_command(name, spec.checkpoint, port, spec.args, self._machine)

        managed = self._replicas(name, command, spec.replicas, on_change)
        return managed[0] if len(managed) == 1 else Replicas(name, managed)

    def bank(self, name: str, base: Path, on_change: OnChange) -> ManagedWorker:
        """The worker of a bank. Its own model has a name that no expert can have."""
        settings = self._settings
        places = settings.bank_places or (GPU_PLACES if self._machine.gpu else CPU_PLACES)
        own = f"bank:{name}"

        def command(port: int) -> Command:
            return bank_command(own, base, port, places, settings.bank_args, self._machine)

        return self._managed(own, f"bank-{name}", own, command, on_change)

    async def close(self) -> None:
        """Nothing: what is started here ends with the server."""

    def _external(
        self,
        name: str,
        base_url: str,
        model: str,
        on_change: OnChange,
        spec: ExternalSpec | None = None,
    ) -> ExternalWorker:
        """A server that runs elsewhere; `base_url` ends in `/v1`. `spec`: an expert's."""
        every = self._settings.probe_seconds
        key_env = spec.api_key_env if spec else None
        return ExternalWorker(name, base_url, model, self._session, on_change, every, key_env)

    def _replicas(
        self, model: str, command: Callable[[int], Command], count: int, on_change: OnChange
    ) -> list[Worker]:
        names = [replica_name(model, number) for number in range(1, count + 1)]
        return [self._managed(name, name, model, command, on_change) for name in names]

    def _managed(
        self,
        name: str,
        log_name: str,
        model: str,
        command: Callable[[int], Command],
        on_change: OnChange,
    ) -> ManagedWorker:
        return ManagedWorker(
            name,
            command,
            self._session,
            self._settings.logs_dir / f"{log_name}.log",
            self._settings.worker_start_seconds,
            on_change,
            model,
            starting=self._starting,
        )
