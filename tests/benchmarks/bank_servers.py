"""The vLLM servers that are compared, as the product starts them: a bank, or one each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from experts.vllm_plugin.bank.adapters import make_base
from server.workers.vllm_command import (
    Command,
    bank_command,
    expert_command,
    meta_command,
    this_machine,
)
from server.workers.worker import free_port, last_error
from tests.benchmarks.bank_settings import Bench
from tests.benchmarks.load import Target

LEAST_FREE = 1 << 30
"""Bytes of memory that must be left while servers start: beyond it the system kills processes,
maybe others'."""
START_SECONDS = 1800
STOP_SECONDS = 15
POLL_SECONDS = 0.25


class ServerFailed(RuntimeError):
    """A server that does not come up; the message says why, in its own words."""


@dataclass(frozen=True)
class Memory:
    """Bytes of processes in all: `pss` counts a page shared by n of them as 1/n in each."""

    processes: int
    pss: int
    rss: int


@dataclass
class Server:
    """A vLLM process and those it starts, in a process group of their own."""

    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def target(self) -> Target:
        return Target(self.url, self.name)

    async def ready(self, session: aiohttp.ClientSession) -> None:
        """Wait until it answers. Raises ServerFailed."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServerFailed(f"{self.name} did not start: {last_error(self.log)}")
            if psutil.virtual_memory().available < LEAST_FREE:
                raise ServerFailed(
                    "not enough memory for all servers: give --experts fewer, or less --kv-mib"
                )
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{self.url}/health") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(POLL_SECONDS)
        raise ServerFailed(f"{self.name} did not start in {START_SECONDS} s (log: {self.log})")

    def stop(self) -> None:
        """End the whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Side:
    """One side of a comparison: servers, the experts that answer there, and the seconds from the
    start of the first process to the answer of the last expert."""

    servers: list[Server]
    targets: list[Target] = field(default_factory=list)
    start_seconds: float = 0.0

    def memory(self) -> Memory:
        """Of all processes of all servers, now."""
        pids = [process for server in self.servers for process in _tree(server.process.pid)]
        infos = [process.memory_full_info() for process in pids]
        return Memory(len(pids), sum(i.pss for i in infos), sum(i.rss for i in infos))


class Bank(Side):
    """A side that is one bank."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        super().__init__([server])
        self._session = session

    async def add(self, name: str, checkpoint: Path) -> Target:
        """Add an expert while others may be served. Raises ServerFailed."""
        (server,) = self.servers
        body = {"name": name, "checkpoint": str(checkpoint)}
        async with self._session.post(f"{server.url}/trivium/bank", json=body) as response:
            if response.status != 201:
                raise ServerFailed(f"{name} was not added: {await response.text()}")
        target = Target(server.url, name)
        self.targets.append(target)
        return target

    async def status(self) -> dict[str, Any]:
        """What the bank says of itself: `swaps`, `swap_seconds`, `experts`."""
        async with self._session.get(f"{self.servers[0].url}/trivium/bank") as response:
            return dict(await response.json())


def open_singles(
    bench: Bench, experts: Sequence[Path], logs: Path
) -> contextlib.AbstractAsyncContextManager[Side]:
    """A server for each of `experts`, all started at once."""
    machine = this_machine()
    return _open(
        bench,
        {e.name: partial(expert_command, e.name, e, args=(), machine=machine) for e in experts},
        logs,
    )


def open_meta(
    bench: Bench, checkpoint: Path, logs: Path
) -> contextlib.AbstractAsyncContextManager[Side]:
    """A meta worker."""
    command = partial(meta_command, checkpoint, args=(), machine=this_machine())
    return _open(bench, {"meta": command}, logs)


@contextlib.asynccontextmanager
async def _open(
    bench: Bench, commands: Mapping[str, Callable[..., Command]], logs: Path
) -> AsyncIterator[Side]:
    """A server for each command, which is made from `port`, with its model's name."""
    side = Side([])
    began = time.perf_counter()
    try:
        for name, command in commands.items():
            port = free_port()
            side.servers.append(_launch(bench, name, port, command(port=port), logs))
        await asyncio.gather(*(server.ready(bench.session) for server in side.servers))
        side.targets = [server.target for server in side.servers]
        await bench.load.round(side.targets, 1)
        side.start_seconds = time.perf_counter() - began
        yield side
    finally:
        _stop(side)


@contextlib.asynccontextmanager
async def open_bank(
    bench: Bench, experts: Sequence[Path], places: int, logs: Path
) -> AsyncIterator[Bank]:
    """A bank with `experts`, of which `places` can be in one step."""
    base = logs / "base"
    make_base(experts[0], base)
    began = time.perf_counter()
    port = free_port()
    command = bank_command("bank", base, port, places, (), this_machine())
    side = Bank(_launch(bench, "bank", port, command, logs), bench.session)
    try:
        await side.servers[0].ready(bench.session)
        for expert in experts:
            await side.add(expert.name, expert)
        await bench.load.round(side.targets, 1)
        side.start_seconds = time.perf_counter() - began
        yield side
    finally:
        _stop(side)


def _launch(bench: Bench, name: str, port: int, command: Command, logs: Path) -> Server:
    """The product's command, with a KV cache of the benchmark's size: vLLM prefers the variable
    that the product sets, which is in whole GiB, to the argument."""
    env = {k: v for k, v in command.env.items() if k != "VLLM_CPU_KVCACHE_SPACE"}
    cache = str(bench.settings.kv_mib << 20)
    log = logs / f"{name}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command.argv, "--kv-cache-memory-bytes", cache],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(name, port, log, process)


def _stop(side: Side) -> None:
    for server in side.servers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGTERM)  # all at once; then each is waited for
    for server in side.servers:
        server.stop()


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
