"""The processes of `deploy/compose.yaml` on this machine: any of them is killed in the middle of
streams, and what it costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from openai import OpenAI

from experts.starter import arithmetic_folder
from server.commands.chat import Options, Reply, continued
from server.workers.worker import free_port
from tests.deploy.files import DEPLOY
from tests.postgres import Server as Postgres
from tests.postgres import postgres_server

pytestmark = pytest.mark.e2e
START_SECONDS = 600.0
SERVICES = ("meta-1", "meta-2", "arithmetic", "postgres", "orchestrator-1", "orchestrator-2")
SUM = "What is 4821 + 3977?"
LONG_SUM = "What is 8731 times 4629?"
STORY = "Tell me a story about a lighthouse."
TOKENS = 240


@dataclass
class Process:
    """One service, started again with the same command as a container engine would."""

    name: str
    command: list[str]
    port: int
    env: dict[str, str]
    log: Path
    running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.command,
                env={**os.environ, **self.env, "TRIVIUM_PORT": str(self.port)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def healthy(self) -> bool:
        assert self.running is not None
        assert self.running.poll() is None, f"{self.name} ended:\n{self.log.read_text()[-3000:]}"
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """All of it at once, as when its container is killed."""
        assert self.running is not None
        os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()


@dataclass
class Topology:
    processes: dict[str, Process]
    database: Postgres

    @property
    def orchestrators(self) -> list[Process]:
        return [p for name, p in self.processes.items() if name.startswith("orchestrator")]

    def client(self, orchestrator: Process) -> OpenAI:
        url = f"{orchestrator.url}/v1"
        return OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)

    def all_live(self) -> bool:
        """Both orchestrators have both meta workers and the expert."""
        for orchestrator in self.orchestrators:
            try:
                found = httpx.get(f"{orchestrator.url}/health", timeout=5).json()
            except (httpx.HTTPError, ValueError):
                return False
            if (found.get("meta"), found.get("experts")) != ("live", {"arithmetic": "live"}):
                return False
        return True

    def kill(self, name: str) -> None:
        if name == "postgres":
            self.database.kill()
        else:
            self.processes[name].kill()

    def start(self, name: str) -> None:
        if name == "postgres":
            self.database.start()
        else:
            self.processes[name].start()
        until(self.all_live)


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory, database: Postgres) -> Iterator[Topology]:
    folder = tmp_path_factory.mktemp("topology")
    program = [sys.executable, "-c", "from server.cli import main; main()"]
    processes: dict[str, Process] = {}

    def make(name: str, *arguments: str, **env: str) -> Process:
        own = {"TRIVIUM_STATE_DIR": str(folder / name), **env}
        log = folder / f"{name}.log"
        processes[name] = Process(name, [*program, *arguments], free_port(), own, log)
        return processes[name]

    try:
        for name in ("meta-1", "meta-2"):  # one after the other, as in compose.yaml
            worker = make(name, "worker", "meta")
            worker.start()
            until(worker.healthy)
        expert = make("arithmetic", "worker", "expert", "arithmetic")
        expert.start()
        until(expert.healthy)
        metas = [processes[name].url for name in ("meta-1", "meta-2")]
        settings = {
            "TRIVIUM_DATABASE_URL": database.new_database(),
            "TRIVIUM_META_URLS": str(metas).replace("'", '"'),
            "TRIVIUM_STARTER_EXPERTS": "false",
            "TRIVIUM_PROBE_SECONDS": "1",
        }
        for name in ("orchestrator-1", "orchestrator-2"):
            make(name, "serve", **settings).start()
        topology = Topology(processes, database)
        for orchestrator in topology.orchestrators:
            until(orchestrator.healthy)
        register(topology.orchestrators[0], expert)
        until(topology.all_live)
        yield topology
    finally:
        for process in processes.values():
            if process.running is not None and process.running.poll() is None:
                process.kill()


def register(orchestrator: Process, expert: Process) -> None:
    """As the service `experts` does."""
    manifest = yaml.safe_load((DEPLOY / "compose" / "arithmetic.yaml").read_text("utf-8"))
    manifest["worker"]["url"] = f"{expert.url}/v1"
    manifest["examples"] = str(arithmetic_folder() / "examples.jsonl")
    answer = httpx.post(f"{orchestrator.url}/v1/experts", json=manifest, timeout=START_SECONDS)
    assert answer.status_code == 201, answer.text


def until(what: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it took too long"
        time.sleep(0.25)


def stream(client: OpenAI, question: str, begun: threading.Barrier) -> tuple[str, str]:
    """How an answer ended, and its text; "broken" if the connection did. An error event raises."""
    body = Options(max_tokens=TOKENS).body([{"role": "user", "content": question}])
    text, finish = "", ""
    try:
        for chunk in client.chat.completions.create(**body):
            piece = chunk.choices[0].delta.content or "" if chunk.choices else ""
            if piece and not text:
                begun.wait(120)
            text += piece
            finish = next((c.finish_reason for c in chunk.choices if c.finish_reason), finish)
    except (httpx.HTTPError, openai.APIConnectionError):
        return "broken", text
    return finish, text


def rest_of(client: OpenAI, question: str, text: str) -> tuple[str, str]:
    """How an answer of which `text` has come ends, and the rest, as our own clients ask for it."""
    options = Options(max_tokens=TOKENS)
    body = continued(options.body([{"role": "user", "content": question}]), Reply(text))
    fields = {name: body.pop(name) for name in ("continue_final_message", "add_generation_prompt")}
    answer: Any = client.chat.completions.create(**{**body, "stream": False}, extra_body=fields)
    return answer.choices[0].finish_reason, answer.choices[0].message.content


def test_the_services_are_those_of_the_compose_file() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    always = {name for name, service in compose["services"].items() if "profiles" not in service}
    once = {"keys", "experts"}
    ours = {"orchestrator" if name.startswith("orch") else name for name in SERVICES}
    assert always - once == ours


@pytest.mark.parametrize("victim", SERVICES)
def test_a_process_is_killed(topology: Topology, victim: str) -> None:
    questions = (LONG_SUM, STORY)
    begun = threading.Barrier(len(questions) * 2 + 1)
    running: dict[str, list[Future[tuple[str, str]]]] = {}
    with ThreadPoolExecutor(4) as pool:
        for orchestrator in topology.orchestrators:
            client = topology.client(orchestrator)
            asked = [pool.submit(stream, client, question, begun) for question in questions]
            running[orchestrator.name] = asked
        begun.wait(180)
        topology.kill(victim)
        other = next(o for o in topology.orchestrators if o.name != victim)
        broken = 0
        for name, asked in running.items():
            for question, future in zip(questions, asked, strict=True):
                finish, text = future.result(180)
                if name == victim and finish == "broken":  # an answer lives in its connection
                    broken += 1
                    finish, rest = rest_of(topology.client(other), question, text)
                    assert rest
                assert finish in ("stop", "length")
                assert text
        assert (broken > 0) == victim.startswith("orchestrator")
    answer = topology.client(other).chat.completions.create(
        model="trivium", messages=[{"role": "user", "content": SUM}], temperature=0
    )
    content = str(answer.choices[0].message.content)
    assert content
    assert "8798" in content or victim == "arithmetic", "new requests are answered at once"
    topology.start(victim)
    answer = topology.client(other).chat.completions.create(
        model="trivium", messages=[{"role": "user", "content": SUM}], temperature=0
    )
    assert "8798" in str(answer.choices[0].message.content)
