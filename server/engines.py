"""The model servers of this machine's settings: made here, not started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import aiohttp

from experts.manifest import ManagedWorker as ManagedSpec
from server.settings import Settings
from server.vllm_command import (
    Command,
    bank_command,
    expert_command,
    meta_command,
    this_machine,
)
from server.workers import ExternalWorker, ManagedWorker, OnChange

CPU_PLACES, GPU_PLACES = 64, 8
"""Experts that a step of a bank may have. On a CPU a place refers to weights that are in memory
anyway; on a GPU it holds a copy."""


class Engines:
    """Makes workers; `on_change` is told of every change of a worker's state."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._settings, self._session = settings, session
        self._machine = this_machine()

    def meta(self, checkpoint: Path | None, on_change: OnChange) -> ManagedWorker | ExternalWorker:
        """The meta worker; `checkpoint` None: it runs elsewhere."""
        settings = self._settings
        if checkpoint is None:
            assert settings.meta_url is not None
            base = f"{settings.meta_url.rstrip('/')}/v1"
            return self.external("meta", base, settings.meta_model, on_change)

        def command(port: int) -> Command:
            return meta_command(checkpoint, port, settings.meta_args, self._machine)

        return self._managed("meta", "meta", command, on_change)

    def expert(self, name: str, spec: ManagedSpec, on_change: OnChange) -> ManagedWorker:
        """A worker for one expert."""

        def command(port: int) -> Command:
            return expert_command(name, spec.checkpoint, port, spec.args, self._machine)

        return self._managed(name, name, command, on_change)

    def bank(self, name: str, base: Path, on_change: OnChange) -> ManagedWorker:
        """The worker of a bank. Its own model has a name that no expert can have."""
        settings = self._settings
        places = settings.bank_places or (GPU_PLACES if self._machine.gpu else CPU_PLACES)
        own = f"bank:{name}"

        def command(port: int) -> Command:
            return bank_command(own, base, port, places, settings.bank_args, self._machine)

        return self._managed(own, f"bank-{name}", command, on_change)

    def external(self, name: str, base_url: str, model: str, on_change: OnChange) -> ExternalWorker:
        """A server that runs elsewhere; `base_url` ends in `/v1`."""
        every = self._settings.probe_seconds
        return ExternalWorker(name, base_url, model, self._session, on_change, every)

    def _managed(
        self, name: str, log_name: str, command: Callable[[int], Command], on_change: OnChange
    ) -> ManagedWorker:
        return ManagedWorker(
            name,
            command,
            self._session,
            self._settings.logs_dir / f"{log_name}.log",
            self._settings.worker_start_seconds,
            on_change,
        )
