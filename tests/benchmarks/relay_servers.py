"""The processes of `trivium bench relay`: stub, orchestrator and load, each on its core."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from experts.manifest import Manifest
from experts.registry import Registry
from router.head import HeadRow
from router.meta_client import MetaInfo
from router.vocabulary import ExpertVocabulary
from server.workers.worker import free_port
from tests.benchmarks.relay_stub import EXPERT_MODEL, FIRST_ID, HIDDEN, SLOTS

START_SECONDS = 60
STOP_SECONDS = 15
MOST_IN_FLIGHT = 4096
"""More than any load here: a 429 would be an error of the benchmark."""
POLL_SECONDS = 0.1


class RelayError(RuntimeError):
    """A process that does not do its part; the message says what it said."""


@dataclass(frozen=True)
class Cores:
    """Where the proxies run, and where stub and load run. One core each if there are two."""

    proxy: int
    others: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[-1])

    def proxies(self, processes: int) -> str:
        """The proxy's core, for several processes as many, as `taskset` takes them."""
        usable = sorted(os.sched_getaffinity(0))
        return ",".join(map(str, usable[:processes])) if processes > 1 else str(self.proxy)


@dataclass(frozen=True)
class Side:
    """Who is asked. `process` is the proxy's, if it is ours to look at."""

    name: str
    url: str
    words: str = ""
    """For the stub, in the question."""
    process: psutil.Process | None = None


@contextlib.contextmanager
def stub(cores: Cores, port: int) -> Iterator[str]:
    """The stub worker; its base URL without `/v1`."""
    command = ["-m", "tests.benchmarks.relay_stub", "--port", str(port)]
    with _running(str(cores.others), command, {}, None):
        url = f"http://127.0.0.1:{port}"
        _wait(f"{url}/v1/models")
        yield url


@contextlib.contextmanager
def orchestrator(
    cores: Cores, worker: str, folder: Path, workers: int = 1
) -> Iterator[tuple[str, psutil.Process]]:
    """`trivium serve --workers N` as a user starts it, with the stub for meta worker and one
    expert: its base URL and its first process. State and log are in `folder`."""
    state, port, log = folder / "state", free_port(), folder / "trivium.log"
    state.mkdir(parents=True)
    _register_expert(f"sqlite:///{state / 'registry.db'}", worker)
    env = {"TRIVIUM_STATE_DIR": str(state), "TRIVIUM_CACHE_DIR": str(folder / "cache")}
    env["TRIVIUM_MAX_IN_FLIGHT"] = str(MOST_IN_FLIGHT)
    command = ["-c", "from server.cli import main; main()", "serve", "--port", str(port)]
    command += ["--meta-url", worker, "--no-starter-experts", "--workers", str(workers)]
    with _running(cores.proxies(workers), command, env, log) as started:
        url, process = f"http://127.0.0.1:{port}/v1", psutil.Process(started.pid)
        _wait(f"{url}/models", f'"trivium/{EXPERT_MODEL}"', log)
        _wait_for_all(process, port, workers)
        yield url, process


def load(
    cores: Cores, side: Side, words: str, clients: int, seconds: float, warm: float = 1.0
) -> dict[str, Any]:
    """Put a load on `side`; what `relay_load` prints, and the proxy's CPU seconds a chunk."""
    question = f"relay {side.words} {words}"
    options = ["--question", question, "--clients", str(clients)]
    options += ["--seconds", str(seconds), "--warm", str(warm)]
    before = _cpu_seconds(side.process)
    command = [*_pinned(str(cores.others)), "-m", "tests.benchmarks.relay_load", side.url, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RelayError(f"the load on {side.name} ended: {done.stderr.strip()[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    result["cpu_seconds"] = _cpu_seconds(side.process) - before if side.process else None
    return result


def _register_expert(database: str, worker: str) -> None:
    """An expert in the registry, as if it had been added; its rows mean nothing to the stub."""
    vocabulary = ExpertVocabulary(FIRST_ID, SLOTS)
    info = MetaInfo("", vocabulary, HIDDEN, "stub")
    zeros = np.zeros(3, np.float32)
    row = HeadRow(np.zeros((3, HIDDEN), np.float32), zeros, zeros)
    manifest = Manifest.model_validate(
        {
            "name": EXPERT_MODEL,
            "description": "The stub's other half.",
            "worker": {"kind": "external", "url": f"{worker}/v1", "model": EXPERT_MODEL},
            "examples": [{"messages": [{"role": "user", "content": f"{i}?"}]} for i in range(5)],
        }
    )
    registry = Registry(database)
    registry.add(manifest, 0, row.to_bytes(), info.rows, None)
    registry.close()


def _wait_for_all(process: psutil.Process, port: int, workers: int) -> None:
    """Until so many processes listen at the port. Raises RelayError."""
    deadline = time.monotonic() + START_SECONDS
    while sum(_listens(p, port) for p in [process, *process.children()]) < workers:
        if time.monotonic() > deadline:
            raise RelayError(f"there are not {workers} processes within {START_SECONDS} s")
        time.sleep(POLL_SECONDS)


def _listens(process: psutil.Process, port: int) -> bool:
    return any(c.laddr.port == port for c in process.net_connections() if c.status == "LISTEN")


def _pinned(cores: str) -> list[str]:
    return ["taskset", "-c", cores, sys.executable]


@contextlib.contextmanager
def _running(
    cores: str, arguments: Sequence[str], env: dict[str, str], log: Path | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process on some cores, until the end of the block."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        process = subprocess.Popen(
            [*_pinned(cores), *arguments],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str, text: str = "", log: Path | None = None) -> None:
    """Until `url` answers with `text`. Raises RelayError."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url) as r:
            if text in r.read().decode():
                return
        time.sleep(POLL_SECONDS)
    said = log.read_text(encoding="utf-8")[-500:] if log else ""
    raise RelayError(f"nothing answers at {url} within {START_SECONDS} s. {said}")


def _cpu_seconds(process: psutil.Process | None) -> float:
    """User and system time so far, with that of its children."""
    if process is None:
        return 0.0
    times = [p.cpu_times() for p in [process, *process.children(recursive=True)]]
    return sum(t.user + t.system for t in times)
