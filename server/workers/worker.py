"""Managed workers: vLLM processes that Trivium starts, watches, restarts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol, runtime_checkable

import aiohttp

from server.relay.snapshot import Endpoint
from server.workers.vllm_command import Command

logger = logging.getLogger(__name__)

State = Literal["starting", "live", "restarting", "failed", "stopped"]

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.5
PROBE_SECONDS = 5.0
MAX_MODELS_BYTES = 1 << 20
MAX_CONTEXT = 1 << 31
STOP_SECONDS = 15.0
FIRST_BACKOFF, LAST_BACKOFF = 1.0, 60.0
SOCKETS = "VLLM_RPC_BASE_PATH"
"""Where vLLM puts the sockets between its processes; it leaves them there."""
START_ATTEMPTS = 3
"""Starts in a row that may fail before the worker is given up."""


class WorkerFailed(RuntimeError):
    """The worker does not come up; the message says why, in its own words."""


@dataclass(frozen=True)
class WorkerStatus:
    """How a worker is. `reason` says what went wrong, for a person."""

    state: State
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


class Worker(Protocol):
    """A model server, ours or somebody else's."""

    name: str

    @property
    def status(self) -> WorkerStatus: ...

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it answers; none unless it is live, several if it has replicas."""
        ...

    @property
    def bank(self) -> str | None:
        """The bank that it is in, if it is."""
        ...

    def start(self) -> None: ...

    async def ready(self) -> tuple[Endpoint, ...]:
        """Wait until it is live, with all replicas. Raises WorkerFailed."""
        ...

    async def stop(self) -> None: ...


OnChange = Callable[[Worker], None]


@runtime_checkable
class Sleeper(Protocol):
    """A worker that may have no process while nobody asks."""

    async def wake(self) -> None:
        """Wait until it answers. Raises WorkerFailed."""
        ...


class Watched:
    """What all kinds of worker share: a status others are told of, and a task."""

    def __init__(self, name: str, on_change: OnChange) -> None:
        self.name = name
        self._on_change = on_change
        self._status = WorkerStatus("starting")
        self._endpoint: Endpoint | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def status(self) -> WorkerStatus:
        return self._status

    @property
    def endpoint(self) -> Endpoint | None:
        return self._endpoint

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return (self._endpoint,) if self._endpoint else ()

    @property
    def bank(self) -> str | None:
        return None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._guarded(), name=f"worker {self.name}")

    async def _guarded(self) -> None:
        """Whatever ends `_run` is told to those who wait for the worker."""
        try:
            await self._run()
        except Exception as error:
            logger.error("worker %s is given up", self.name, exc_info=error)
            self._set(WorkerStatus("failed", f"{type(error).__name__}: {error}"))

    async def _run(self) -> None:
        raise NotImplementedError

    async def ready(self) -> tuple[Endpoint, ...]:
        while not self._endpoint:
            if self._status.state in ("failed", "stopped"):
                raise WorkerFailed(f"worker {self.name!r} {self._status}")
            self._changed.clear()
            await self._changed.wait()
        return self.endpoints

    def _set(self, status: WorkerStatus, endpoint: Endpoint | None = None) -> None:
        if (status, endpoint) == (self._status, self._endpoint):
            return
        self._status, self._endpoint = status, endpoint
        self._changed.set()
        self._on_change(self)  # type: ignore[arg-type]

    async def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._set(WorkerStatus("stopped"))


class ManagedWorker(Watched):
    """A process of ours. Restarted with growing pauses when it ends by itself."""

    def __init__(
        self,
        name: str,
        command: Callable[[int], Command],
        session: aiohttp.ClientSession,
        log: Path,
        start_seconds: float,
        on_change: OnChange,
        model: str | None = None,
        host: str = LOOPBACK,
        starting: AbstractAsyncContextManager[Any] | None = None,
    ) -> None:
        """`command` gives the command for a port; `model` is the model's name there, by default
        the worker's; `host` is this machine's address on which it listens. Workers with the same
        `starting` start one after the other."""
        super().__init__(name, on_change)
        self._command = command
        self._starting = starting or asyncio.Lock()
        self._model, self._host = model or name, host
        self._port: int | None = None
        self._session = session
        self._log = log
        self._start_seconds = start_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._sockets: TemporaryDirectory[str]

    async def stop(self) -> None:
        await self._cancel()
        await self._end_process()

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                async with self._starting:
                    endpoint = await self._started()
            except (WorkerFailed, OSError) as error:  # OSError: no room on the disk, no process
                failures += 1
                reason = str(error) if isinstance(error, WorkerFailed) else f"no start: {error}"
                if failures >= START_ATTEMPTS:
                    self._set(WorkerStatus("failed", reason))
                    return
                self._set(WorkerStatus("restarting", reason))
            else:
                failures = 0
                self._set(WorkerStatus("live"), endpoint)
                assert self._process is not None
                code = await self._process.wait()
                await self._end_process()
                self._set(WorkerStatus("restarting", f"its process ended with status {code}"))
            await asyncio.sleep(min(FIRST_BACKOFF * 2**failures, LAST_BACKOFF))

    async def _started(self) -> Endpoint:
        """Where a new process answers. If it does not, there is none: what it held is free again
        before others start."""
        try:
            return await self._launch()
        except BaseException:
            await self._end_process()
            raise

    async def _launch(self) -> Endpoint:
        # The port of before, so that an answer that was cut finds the worker again.
        port = self._port = free_port(self._port, self._host)
        command = self._command(port)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._sockets = TemporaryDirectory(prefix="trivium-")
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command.argv,
                env={**command.env, SOCKETS: self._sockets.name},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        return await self._healthy(f"http://{self._host}:{port}")

    async def _healthy(self, base: str) -> Endpoint:
        """Wait until the process answers. Raises WorkerFailed if it ends, or takes too long."""
        assert self._process is not None
        deadline = asyncio.get_running_loop().time() + self._start_seconds
        while asyncio.get_running_loop().time() < deadline:
            if self._process.returncode is not None:
                raise WorkerFailed(f"could not start: {last_error(self._log)} (log: {self._log})")
            with contextlib.suppress(TimeoutError):
                endpoint = await probe(self._session, f"{base}/v1", self._model)
                if endpoint is not None:
                    return endpoint
            await asyncio.sleep(POLL_SECONDS)
        raise WorkerFailed(
            f"not healthy after {self._start_seconds:.0f} s (log: {self._log}); if the machine is"
            " slow, raise TRIVIUM_WORKER_START_SECONDS"
        )

    async def _end_process(self) -> None:
        """End the process and all it started; they share a process group."""
        process, self._process = self._process, None
        if process is None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            pass
        finally:
            _signal_group(process.pid, signal.SIGKILL)
            await process.wait()
            self._sockets.cleanup()


class Absent(Watched):
    """A worker that cannot be here: its checkpoint is on another machine."""

    def __init__(self, name: str, checkpoint: Path, on_change: OnChange) -> None:
        super().__init__(name, on_change)
        self._checkpoint = checkpoint

    async def stop(self) -> None:
        await self._cancel()

    async def _run(self) -> None:
        reason = f"its checkpoint {self._checkpoint} cannot be read here"
        self._set(WorkerStatus("failed", reason))


class ExternalWorker(Watched):
    """A server that runs elsewhere: asked regularly whether it serves the model."""

    def __init__(
        self,
        name: str,
        base_url: str,
        model: str,
        session: aiohttp.ClientSession,
        on_change: OnChange,
        every: float = 5.0,
        key_env: str | None = None,
    ) -> None:
        """`base_url` ends in `/v1`; `every` is the pause between two questions (s); `key_env` the
        environment variable with the API key that it wants."""
        super().__init__(name, on_change)
        self._base_url, self._model, self._key_env = base_url, model, key_env
        self._session, self._every = session, every

    async def stop(self) -> None:
        await self._cancel()

    async def _run(self) -> None:
        while True:
            endpoint = await self._probe()
            if endpoint is not None:
                self._set(WorkerStatus("live"), endpoint)
            else:
                self._set(WorkerStatus("failed", self._reason()))
            await asyncio.sleep(self._every)

    def _reason(self) -> str:
        if self._key_env and not os.environ.get(self._key_env):
            return f"the server's environment has no {self._key_env}, which its manifest names"
        reason = f"{self._base_url} does not serve a model named {self._model!r}"
        return f"{reason}, or not with the key in {self._key_env}" if self._key_env else reason

    async def _probe(self) -> Endpoint | None:
        asked = self._session, self._base_url, self._model, self._key_env
        try:
            return await probe(*asked)
        except TimeoutError:  # one that is busy is asked once more
            with contextlib.suppress(TimeoutError):
                return await probe(*asked)
        return None


async def probe(
    session: aiohttp.ClientSession, base_url: str, model: str, key_env: str | None = None
) -> Endpoint | None:
    """The endpoint of `model` at `base_url` (with `/v1`), or None if it is not served there.
    Raises TimeoutError."""
    endpoint = Endpoint(base_url, model, key_env=key_env)
    try:
        async with session.get(
            f"{base_url}/models",
            timeout=aiohttp.ClientTimeout(total=PROBE_SECONDS),
            allow_redirects=False,
            headers=endpoint.authorization,
        ) as response:
            if response.status != 200:
                return None
            entries = json.loads(await _small(response))["data"]
            found = next((entry for entry in entries if entry["id"] == model), None)
            return replace(endpoint, max_model_len=_context(found)) if found else None
    except TimeoutError:
        raise
    except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


async def _small(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises ValueError if it is too large for a list of models."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_MODELS_BYTES:
            raise ValueError(f"a list of models of more than {MAX_MODELS_BYTES} bytes")
    return bytes(body)


def _context(entry: dict[str, Any]) -> int | None:
    """The context length that a server states, if it is one: not every server is vLLM."""
    stated = entry.get("max_model_len")
    return stated if type(stated) is int and 0 < stated < MAX_CONTEXT else None


def free_port(wanted: int | None = None, host: str = LOOPBACK) -> int:
    """A port of `host` that nobody listens on now: `wanted` if that is free."""
    with socket.socket() as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind((host, wanted or 0))
        except OSError:
            if wanted is None:
                raise
            return free_port(host=host)
        port: int = probe_socket.getsockname()[1]
        return port


def last_error(log: Path) -> str:
    """The most telling line near the end of a worker's log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "it left no log"
    raised = [line for line in lines if re.search(r"\w(Error|Exception): ", line)]
    errors = [line for line in raised if "Engine core init" not in line]
    line = (errors or lines or ["it wrote nothing"])[-1]
    return line.split("] ", 1)[-1].strip()[:300]


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def die_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """In the child, before exec: get a signal when Trivium ends in any way (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, by)  # PR_SET_PDEATHSIG
