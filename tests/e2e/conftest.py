"""One real server for the whole suite: a vLLM meta worker, the shipped experts, the HTTP API."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from openai import OpenAI

from server.workers.worker import free_port

START_SECONDS = 900
STARTERS = ("arithmetic", "chemistry", "dates", "geography")


@dataclass
class Server:
    """`trivium serve` in a process of its own, with a state folder of its own."""

    state_dir: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=300)

    @property
    def log(self) -> str:
        return (self.state_dir / "serve.log").read_text()

    def start(self) -> None:
        """Start and wait until the meta LLM and every registered expert are live."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with (self.state_dir / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command("serve", "--port", str(self.port)),
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait_live(*STARTERS)

    def wait_live(self, *experts: str) -> float:
        """Seconds until the meta and `experts` are live; fails with the log if that ends badly."""
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            assert self.process is not None
            assert self.process.poll() is None, f"the server ended:\n{self.log}"
            assert "was not registered" not in self.log, self.log
            states = self.health().get("experts", {})
            if all(states.get(name) == "live" for name in experts):
                return time.monotonic() - began
            time.sleep(0.5)
        pytest.fail(f"not live after {START_SECONDS} s:\n{self.log}")

    def health(self) -> dict[str, Any]:
        try:
            response = httpx.get(f"{self.url}/health", timeout=5)
        except httpx.HTTPError:
            return {}
        return dict(response.json()) if response.status_code == 200 else {}

    def descendants(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self) -> int:
        """Ctrl-C; the exit status. Fails if a process is left behind."""
        assert self.process is not None
        started = self.descendants()
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(60)
        _, left = psutil.wait_procs(started, timeout=5)
        for process in left:
            process.kill()
        assert not left, f"left behind: {left}"
        return status

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "TRIVIUM_STATE_DIR": str(self.state_dir), "TRIVIUM_URL": self.url}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from server.cli import main; main()", *arguments]

    def trivium(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `trivium` command against this server."""
        return subprocess.run(
            self.command(*arguments),
            env={**self.env, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("trivium"), free_port())
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


@pytest.fixture
def client(server: Server) -> OpenAI:
    return server.client
