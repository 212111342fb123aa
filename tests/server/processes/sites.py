"""`trivium serve --workers 2` as a person starts it, before fake workers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from server.workers.worker import free_port
from tests.fake_meta import FakeMeta
from tests.fakes import FakeWorker, says

START_SECONDS = 60.0
SLOW = [f" {number}" for number in range(40)]
SLOW_TEXT = "".join(SLOW)


@dataclass
class Many:
    """A server of two processes: the owner, and one relay."""

    folder: Path
    port: int
    meta: FakeMeta
    expert: FakeWorker
    process: psutil.Popen
    """The owner's."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "serve.log").read_text()

    def relays(self) -> list[psutil.Process]:
        return [p for p in self.process.children() if p.status() != psutil.STATUS_ZOMBIE]

    def state(self, name: str) -> Path:
        return self.folder / "state" / name

    def write_slowly(self, seconds: float = 2.0) -> None:
        """Both models take so long for an answer."""
        self.expert.behave = self.meta.writer.behave = says(*SLOW, delay=seconds / len(SLOW))

    def write_at_once(self) -> None:
        self.expert.behave = self.meta.writer.behave = says("42")

    @asynccontextmanager
    async def through(
        self, process: psutil.Process, **options: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        """A client whose only connection is to that process."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                limits = httpx.Limits(max_connections=1)
                async with httpx.AsyncClient(
                    base_url=self.url, timeout=60, limits=limits, **options
                ) as http:
                    response = await http.get("/version")
                    ours = response.extensions["network_stream"].get_extra_info("client_addr")
                    if any(c.raddr == tuple(ours) for c in process.net_connections()):
                        yield http
                        return
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def through_each(self) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
        """A client of the owner, and one of the relay."""
        (relay,) = self.relays()
        async with self.through(self.process) as first, self.through(relay) as second:
            yield first, second

    def manifest(self, name: str, examples: list[str], **other: Any) -> dict[str, Any]:
        endpoint = self.expert.endpoint
        worker = {"url": endpoint.base_url, "model": endpoint.model}
        return {"name": name, "description": name, "worker": worker, "examples": examples, **other}

    async def until_up(self) -> None:
        """The meta LLM is live, and both processes answer."""
        async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(base_url=self.url) as http:
            while not await self._is_up(http):
                assert self.process.poll() is None, self.log
                await asyncio.sleep(0.05)

    async def _is_up(self, http: httpx.AsyncClient) -> bool:
        try:
            up = (await http.get("/health")).status_code == 200
        except httpx.HTTPError:
            return False
        return up and len(self.relays()) == 1 and any(self._listens(r) for r in self.relays())

    def _listens(self, process: psutil.Process) -> bool:
        return any(
            c.status == psutil.CONN_LISTEN and c.laddr.port == self.port
            for c in process.net_connections()
        )


@asynccontextmanager
async def many(folder: Path, **settings: str) -> AsyncIterator[Many]:
    """Such a server with `settings` (`TRIVIUM_…` without the prefix, in small letters)."""
    async with FakeMeta() as meta, FakeWorker(says("42"), "calc") as expert:
        site = _start(folder, meta, expert, settings)
        try:
            await site.until_up()
            yield site
        finally:
            end(site)


def _start(folder: Path, meta: FakeMeta, expert: FakeWorker, settings: dict[str, str]) -> Many:
    port = free_port()
    ours = {
        "state_dir": str(folder / "state"),
        "cache_dir": str(folder / "cache"),
        "probe_seconds": "0.1",
        "log_format": "json",
        **settings,
    }
    env = os.environ | {f"TRIVIUM_{name.upper()}": value for name, value in ours.items()}
    command = [sys.executable, "-c", "from server.cli import main; main()", "serve"]
    command += ["--port", str(port), "--meta-url", meta.url, "--no-starter-experts"]
    with (folder / "serve.log").open("wb") as log:
        process = psutil.Popen(
            [*command, "--workers", "2"], env=env, stdout=subprocess.DEVNULL, stderr=log
        )
    return Many(folder, port, meta, expert, process)


def end(site: Many) -> None:
    """Ctrl-C, twice."""
    relays = site.relays() if site.process.is_running() else []
    for _ in range(2):
        if site.process.poll() is None:
            site.process.send_signal(signal.SIGINT)
    try:
        site.process.wait(30)
    except psutil.TimeoutExpired:
        site.process.kill()
        site.process.wait()
    psutil.wait_procs(relays, timeout=10)


def chat(question: str = "Hi", model: str = "trivium", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], **fields}


async def ask(http: httpx.AsyncClient, *args: Any, **fields: Any) -> httpx.Response:
    return await http.post("/v1/chat/completions", json=chat(*args, **fields))


async def text_of(http: httpx.AsyncClient, *args: Any, **fields: Any) -> str:
    response = await ask(http, *args, **fields)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


async def begun(worker: FakeWorker, answers: int) -> None:
    """Wait until a worker has been asked so many times."""
    async with asyncio.timeout(20):
        while len(worker.received) < answers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
