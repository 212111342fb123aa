"""One replica of a model: a Serve replica that runs one vLLM and announces where it answers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import aiohttp
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray import serve
from rich.console import Console

from server.commands.serve import prepare_meta
from server.ray.directory import ANNOUNCE_SECONDS, NAME, NOTICE_SECONDS
from server.settings import Settings
from server.workers.vllm_command import Command, expert_command, meta_command, this_machine
from server.workers.worker import ManagedWorker, Worker, WorkerFailed

REQUESTS = "requests"
"""What autoscaling goes by: requests that a replica's vLLM runs or has waiting."""
_QUEUES = ("vllm:num_requests_running", "vllm:num_requests_waiting")
READ_SECONDS = 2.0
IDLE_POLL = 0.5
LOCK_POLL = 0.2


@dataclass(frozen=True)
class Model:
    """What a replica serves, on whichever node it is."""

    name: str
    """Its name at the worker: "meta", or the expert's."""
    checkpoint: Path | None
    """A folder that every node has; None: the meta LLM that the settings name, made ready first."""
    args: tuple[str, ...] = ()
    """Further arguments for vLLM."""
    gpu_share: float | None = None
    """Of the GPU that Ray gives it, what vLLM may take; None: no GPU."""
    application: str = "trivium"
    """The Serve application that has the directory."""
    drain_seconds: float = 300.0
    """How long running answers may go on when it is to end."""

    def command(self, settings: Settings, checkpoint: Path, host: str, port: int) -> Command:
        """vLLM on this node, listening at `host`."""
        args: tuple[str, ...] = ("--host", host)
        if self.gpu_share is not None:
            args += ("--gpu-memory-utilization", str(self.gpu_share))
        if self.checkpoint is None:
            own = (*args, *settings.meta_args, *self.args)
            return meta_command(checkpoint, port, own, this_machine())
        return expert_command(self.name, checkpoint, port, (*args, *self.args), this_machine())


class NodeLock:
    """Held by one process of this node at a time."""

    def __init__(self, name: str) -> None:
        self._path = Path(tempfile.gettempdir()) / f"trivium-{os.getuid()}-{name}.lock"
        self._file: IO[bytes] | None = None

    async def __aenter__(self) -> None:
        file = self._path.open("ab")
        try:
            while not _taken(file):  # noqa: ASYNC110
                await asyncio.sleep(LOCK_POLL)
        except BaseException:
            file.close()
            raise
        self._file = file

    async def __aexit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()


def _taken(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _gpus() -> str:
    """Those of this process, as a part of a file's name."""
    return "gpu-" + re.sub(r"[^0-9A-Za-z]+", "-", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))


class ModelServer:
    """A Serve deployment; ready once its vLLM answers, unhealthy once that stays away."""

    async def __init__(self, model: Model) -> None:  # type: ignore[misc]  # as Serve has it
        self._model, self._settings = model, Settings()
        self._directory = serve.get_deployment_handle(NAME, model.application)
        self._session = aiohttp.ClientSession()
        checkpoint = await self._checkpoint()
        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        replica = serve.get_replica_context().replica_tag
        log = self._settings.logs_dir / f"{replica.replace('#', '-')}.log"

        def command(port: int) -> Command:
            return model.command(self._settings, checkpoint, host, port)

        seconds = self._settings.worker_start_seconds
        # vLLM takes all that changes on a GPU while it starts for its own doing.
        starting = NodeLock(_gpus()) if this_machine().gpu else None
        self._worker = ManagedWorker(
            model.name,
            command,
            self._session,
            log,
            seconds,
            self._changed,
            host=host,
            starting=starting,
        )
        self._announced: str | None = None
        self._known_requests = 0.0
        self._worker.start()
        try:
            await self._worker.ready()
        except WorkerFailed:
            await self._worker.stop()
            await self._session.close()
            raise
        self._announcing = asyncio.create_task(self._announce())

    async def base_url(self) -> str:
        """Where its vLLM answers. A call of this wakes a model that has no replica."""
        (endpoint,) = await self._worker.ready()
        return endpoint.base_url.removesuffix("/v1")

    async def check_health(self) -> None:
        """Raises WorkerFailed when its vLLM has been given up: Serve puts another replica up."""
        status = self._worker.status
        if status.state == "failed":
            raise WorkerFailed(str(status))

    async def record_autoscaling_stats(self) -> Mapping[str, float]:
        """What `scaling.by_requests` decides by."""
        return {REQUESTS: await self._requests()}

    async def __del__(self) -> None:
        """Take no new requests, let those that run end, then end vLLM."""
        if not hasattr(self, "_announcing"):
            return
        self._announcing.cancel()
        await asyncio.gather(self._announcing, return_exceptions=True)
        await self._leave()
        await asyncio.sleep(NOTICE_SECONDS)  # until then it is asked, and answers
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._model.drain_seconds):
                while self._worker.endpoint and await self._requests():  # noqa: ASYNC110
                    await asyncio.sleep(IDLE_POLL)
        await self._worker.stop()
        await self._session.close()

    async def _checkpoint(self) -> Path:
        checkpoint = self._model.checkpoint
        if checkpoint is None:
            quiet = Console(quiet=True)
            return await asyncio.to_thread(prepare_meta, self._settings, quiet)
        if not checkpoint.is_dir():
            raise WorkerFailed(
                f"the checkpoint {checkpoint} of {self._model.name!r} is not on this node; every"
                " node needs it at that path (the same image, or a shared file system)"
            )
        return checkpoint

    def _changed(self, worker: Worker) -> None:
        """A vLLM that ended is not asked until it is up again."""
        if not worker.endpoints and self._announced is not None:
            self._leaving = asyncio.create_task(self._leave())

    async def _announce(self) -> None:
        while True:
            endpoint = self._worker.endpoint
            if endpoint is not None:
                url = self._announced = endpoint.base_url.removesuffix("/v1")
                await self._tell("announce", url)
            await asyncio.sleep(ANNOUNCE_SECONDS)

    async def _leave(self) -> None:
        url, self._announced = self._announced, None
        if url is not None:
            await self._tell("leave", url)

    async def _tell(self, what: str, url: str) -> None:
        """The directory may be away, while its own node is replaced."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(READ_SECONDS):
                await getattr(self._directory, what).remote(self._model.name, url)

    async def _requests(self) -> float:
        """Requests at its vLLM, running and waiting; as many as before while that is too busy to
        say, so that it is not taken for idle."""
        endpoint = self._worker.endpoint
        if endpoint is None:
            self._known_requests = 0.0
            return 0.0
        url = f"{endpoint.base_url.removesuffix('/v1')}/metrics"
        timeout = aiohttp.ClientTimeout(total=READ_SECONDS)
        try:
            async with self._session.get(url, timeout=timeout) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return self._known_requests
        families = text_string_to_metric_families(text)
        counts = (s.value for f in families if f.name in _QUEUES for s in f.samples)
        self._known_requests = sum(counts)
        return self._known_requests
