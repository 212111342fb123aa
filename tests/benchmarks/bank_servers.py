"""The vLLM servers that are compared, as the product starts them: a bank, or one each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from experts.vllm_plugin.bank.adapters import make_adapter, make_base
from server import vllm_command
from server.vllm_command import Command, expert_command, this_machine
from server.workers import free_port, last_error
from tests.benchmarks.load import Load, Target

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
            if response.status == 404:  # TODO: goes with `_bank_command`
                return await self._add_adapter(name, checkpoint)
            if response.status != 201:
                raise ServerFailed(f"{name} was not added: {await response.text()}")
        target = Target(server.url, name)
        self.targets.append(target)
        return target

    async def remove(self, target: Target) -> None:
        """Take an expert out. Raises ServerFailed."""
        async with self._session.delete(f"{target.url}/trivium/bank/{target.model}") as response:
            if response.status == 404:
                body = {"lora_name": target.model}
                url = f"{target.url}/v1/unload_lora_adapter"
                async with self._session.post(url, json=body) as other:
                    other.raise_for_status()
            elif response.status != 204:
                raise ServerFailed(f"{target} was not removed: {await response.text()}")
        self.targets.remove(target)

    async def status(self) -> dict[str, Any]:
        """`GET /trivium/bank`: slots, swaps, swap_seconds, experts."""
        async with self._session.get(f"{self.servers[0].url}/trivium/bank") as response:
            if response.status == 404:
                return {"swaps": 0, "swap_seconds": 0.0, "experts": []}
            return dict(await response.json())

    async def _add_adapter(self, name: str, checkpoint: Path) -> Target:
        (server,) = self.servers
        adapter = server.log.parent / f"adapter-{name}"
        make_adapter(checkpoint, adapter)
        body = {"lora_name": name, "lora_path": str(adapter)}
        url = f"{server.url}/v1/load_lora_adapter"
        async with self._session.post(url, json=body) as response:
            if response.status != 200:
                raise ServerFailed(f"{name} was not added: {await response.text()}")
        target = Target(server.url, name)
        self.targets.append(target)
        return target


@contextlib.asynccontextmanager
async def open_singles(
    session: aiohttp.ClientSession, load: Load, experts: Sequence[Path], logs: Path
) -> AsyncIterator[Side]:
    """A server for each of `experts`, all started at once."""
    began = time.perf_counter()
    side = Side([])
    try:
        for expert in experts:
            side.servers.append(_launch_single(expert, logs))
        await asyncio.gather(*(server.ready(session) for server in side.servers))
        side.targets = [server.target for server in side.servers]
        await load.round(side.targets, 1)
        side.start_seconds = time.perf_counter() - began
        yield side
    finally:
        _stop(side)


@contextlib.asynccontextmanager
async def open_bank(
    session: aiohttp.ClientSession, load: Load, experts: Sequence[Path], resident: int, logs: Path
) -> AsyncIterator[Bank]:
    """A bank with `experts`, of which `resident` are in slots at a time."""
    base = logs / "base"
    make_base(experts[0], base)
    began = time.perf_counter()
    port = free_port()
    command = _bank_command("bank", base, port, resident)
    side = Bank(Server("bank", port, *_start(command, logs / "bank.log")), session)
    try:
        await side.servers[0].ready(session)
        for expert in experts:
            await side.add(expert.name, expert)
        await load.round(side.targets, 1)
        side.start_seconds = time.perf_counter() - began
        yield side
    finally:
        _stop(side)


def _launch_single(expert: Path, logs: Path) -> Server:
    port = free_port()
    command = expert_command(expert.name, expert, port, (), this_machine())
    return Server(expert.name, port, *_start(command, logs / f"{expert.name}.log"))


def _bank_command(name: str, base: Path, port: int, resident: int) -> Command:
    if hasattr(vllm_command, "bank_command"):
        made: Command = vllm_command.bank_command(name, base, port, resident, (), this_machine())
        return made
    args = ("--load-format", "dummy", "--enable-lora", "--max-loras", str(resident))
    args += ("--max-cpu-loras", "1024", "--max-lora-rank", "1")
    args += ("--lora-target-modules", "expert_selector")
    command = expert_command(name, base, port, args, this_machine())
    return Command(command.argv, {**command.env, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"})


def _start(command: Command, log: Path) -> tuple[Path, subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command.argv,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return log, process


def _stop(side: Side) -> None:
    for server in side.servers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGTERM)  # all at once; then each is waited for
    for server in side.servers:
        server.stop()


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
