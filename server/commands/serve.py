"""`trivium serve`: check the machine, make the meta LLM ready, start everything, show progress."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from fastapi import FastAPI
from rich.console import Console

from experts.registry import Registry, RegistryUnavailable
from server.app import Watcher, create_app
from server.commands.client import CommandError
from server.commands.configuration import load_settings
from server.edge.addresses import Addresses
from server.edge.keys import KeysError, KeyStore
from server.garbage import collect_seldom
from server.processes.listening import family_of, public_config, shared_socket
from server.processes.owner import Relays
from server.seeing.logs import log_to_stderr
from server.settings import Settings
from server.workers.draining import DrainingServer
from server.workers.registration import Progress
from server.workers.vllm_command import this_machine
from server.workers.worker import LOOPBACK, WorkerStatus

NEEDED_MEMORY = 4_000_000_000
"""Bytes that the embedded default's two workers and the orchestrator need to start."""


def serve(options: dict[str, Any]) -> None:
    """Serve until Ctrl-C. Raises CommandError where the machine does not allow it."""
    console = Console(highlight=False, soft_wrap=True)
    settings = load_settings(**options)
    check_database(settings)
    check_keys(settings)
    check_port(settings.host, settings.port)
    checkpoint = None
    if not settings.meta_bases:
        check_networks(settings)
        check_engine()
        check_memory()
        checkpoint = prepare_meta(settings, console)
    log_to_stderr(settings.log_format)
    relays = Relays(settings) if settings.workers > 1 else None
    app = create_app(settings, checkpoint, Printer(console, settings), relays=relays)
    run(app, settings)
    console.print("stopped")


def run(app: FastAPI, settings: Settings) -> None:
    """Serve until told to stop. Raises CommandError if the application does not start."""
    collect_seldom()
    server = DrainingServer(public_config(app, settings), app.state.drain)
    sockets = [shared_socket(settings)] if settings.workers > 1 else None
    with contextlib.suppress(KeyboardInterrupt):  # raised again once all is stopped
        server.run(sockets)
    if not server.started:
        raise CommandError("the server could not start; the lines above say why")


def check_port(host: str, port: int) -> None:
    """Raise CommandError if the address cannot be listened on."""
    with socket.socket(family_of(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"cannot listen on {host} port {port} ({error.strerror}); stop the program that"
                " uses it, or choose another port with --port"
            ) from None


def check_networks(settings: Settings) -> None:
    """Raise CommandError if the workers that are started here would not be spoken to."""
    if not Addresses(settings.worker_networks).permits(LOOPBACK):
        raise CommandError(
            f"TRIVIUM_WORKER_NETWORKS leaves out {LOOPBACK}, where the workers listen that are"
            ' started here; add "127.0.0.0/8" to it'
        )


def check_database(settings: Settings) -> None:
    """Raise CommandError if the database that the settings name cannot be used."""
    if settings.database_url is None:
        return
    try:
        Registry(settings.database_url).close()
    except RegistryUnavailable as error:
        raise CommandError(f"{error} (see TRIVIUM_DATABASE_URL)") from None


def check_keys(settings: Settings) -> None:
    """Raise CommandError if requests need an API key and there is none that counts."""
    if not settings.keys_required:
        return
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    try:
        store = KeyStore(settings.database)
        keys = store.keys()
        store.close()
    except KeysError as error:
        raise CommandError(str(error)) from None
    now = datetime.now(UTC)
    if not any(key.expires is None or key.expires > now for key in keys):
        why = (
            "TRIVIUM_KEYS is `on`"
            if settings.keys == "on"
            else f"{settings.host} can be reached from other machines"
        )
        raise CommandError(
            f"{why}, so requests need an API key, and there is none: make one with `trivium keys"
            " create NAME` (`--scope admin` for one that adds experts), or say --no-keys if a"
            " proxy in front sees to who may call"
        )


def check_engine() -> None:
    """Raise CommandError if vLLM is not installed."""
    if find_spec("vllm") is None:
        raise CommandError(
            "vLLM is not installed, so no worker can be started here; run `make install` in"
            " Trivium's checkout, or name a meta worker with --meta-url"
        )


def check_memory() -> None:
    """Raise CommandError if the workers would not fit into memory."""
    free = psutil.virtual_memory().available
    if not this_machine().gpu and free < NEEDED_MEMORY:
        raise CommandError(
            f"{free / 1e9:.1f} GB of memory are available, the workers need"
            f" {NEEDED_MEMORY / 1e9:.0f} GB; end other programs and try again"
        )


def prepare_meta(settings: Settings, console: Console) -> Path:
    """Run the job `router.prepare`, showing its progress; the servable folder.

    It is a process of its own because it needs torch, which the orchestrator does without.
    """
    command = [sys.executable, "-P", "-m", "router.prepare", "--cache", str(settings.models_dir)]
    command += ["--slots", str(settings.slots)]
    if settings.meta is not None:
        command += ["--source", str(settings.meta.expanduser().resolve())]
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        for line in job.stdout:
            if last:
                console.print(f"  {last}", markup=False)
            last = line.rstrip()
        errors = job.stderr.read().strip().splitlines()
    if job.returncode:
        reason = errors[-1].removeprefix("error: ") if errors else "it gave no reason"
        raise CommandError(f"the meta LLM cannot be made ready: {reason}")
    return Path(last)


class Printer(Watcher):
    """Prints what happens, each thing with the time it took."""

    def __init__(self, console: Console, settings: Settings) -> None:
        self._console, self._settings = console, settings
        self._since: dict[str, float] = {}
        self._steps: dict[str, str] = {}
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._url = f"http://{host}:{settings.port}"
        self._announced = False
        self._meta_live = time.monotonic()
        """When the meta worker came up; then the workers of known experts are started."""
        self._started("meta")
        self._print(f"starting the meta worker (log: {settings.logs_dir / 'meta.log'}) …")

    def worker(self, name: str, status: WorkerStatus) -> None:
        if status.state == "live":
            self._print(f"worker {name} is live ({self._took(name)})")
            if name.partition(".")[0] == "meta" and not self._announced:
                self._announced = True
                self._meta_live = time.monotonic()
                self._print(f"serving on {self._url} (a browser finds the chat page there);")
                self._print("experts join as they come up")
        elif status.state in ("restarting", "failed"):
            self._started(name)
            self._print(f"worker {name} {status}")

    def registration(self, progress: Progress) -> None:
        name, step = progress.name, progress.step.split(" queries ")[0]
        if progress.state == "failed":
            self._print(f"expert {name} was not registered: {progress.error}")
        elif progress.state == "done":
            self._print(f"expert {name} is live as trivium/{name}")
        elif self._steps.get(name) != step:
            self._steps[name] = step
            if step == "starting the worker":
                self._started(name)
            self._print(f"expert {name}: {step} …")

    def _started(self, name: str) -> None:
        self._since[name] = time.monotonic()

    def _took(self, name: str) -> str:
        since = self._since.get(name, self._meta_live)
        return f"{time.monotonic() - since:.1f} s"

    def _print(self, text: str) -> None:
        # A full disk, or a pipe that nobody reads, for which rich would end the program.
        with contextlib.suppress(OSError, SystemExit):
            self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False)
