"""The `trivium` command against a running orchestrator, and where there is none."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from aiohttp import ClientSession, web
from rich.console import Console

from experts.kernels.dispatch import kernel
from server.commands import chat, doctor, experts
from server.commands.chat import Options
from server.commands.client import CommandError, with_session
from server.commands.configuration import load_settings
from server.commands.serve import Printer, check_memory, check_networks, check_port
from server.settings import Settings, is_loopback
from server.workers.worker import WorkerStatus
from tests.fake_meta import FakeMeta
from tests.fakes import FakeWorker, continues, in_turn, says
from tests.server.conftest import World
from tests.server.workers.test_registration import SUMS, Site, running

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(FakeMeta())
        expert = await stack.enter_async_context(FakeWorker(says("4", "2"), "calc"))
        yield await stack.enter_async_context(running(meta, expert, tmp_path))


def write_manifest(site: Site, folder: Path) -> Path:
    worker = {"url": site.expert.endpoint.base_url, "model": "calc"}
    manifest = {"name": "sums", "description": "d", "worker": worker, "examples": SUMS}
    path = folder / "expert.yaml"
    path.write_text(yaml.safe_dump(manifest))
    return path


async def test_experts_are_added_listed_shown_and_removed(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(site.http.base_url)
    await asyncio.to_thread(experts.add, url, write_manifest(site, tmp_path))
    assert "sums is live as trivium/sums" in capsys.readouterr().out
    await asyncio.to_thread(experts.list_experts, url, False)
    assert "sums" in capsys.readouterr().out
    await asyncio.to_thread(experts.list_experts, url, True)
    assert json.loads(capsys.readouterr().out)[0]["state"] == "live"
    await asyncio.to_thread(experts.show, url, "sums", False)
    assert "examples" in capsys.readouterr().out
    await asyncio.to_thread(experts.change, url, "sums", None, 0.75, True)
    assert json.loads(capsys.readouterr().out)["threshold"] == 0.75
    await asyncio.to_thread(experts.remove, url, "sums")
    await asyncio.to_thread(experts.list_experts, url, False)
    assert "no experts are registered" in capsys.readouterr().out


async def test_a_failed_registration_is_an_error_with_its_step(site: Site, tmp_path: Path) -> None:
    path = write_manifest(site, tmp_path)
    path.write_text(path.read_text().replace("model: calc", "model: other"))
    with pytest.raises(CommandError, match=r"failed at “starting the worker”.*does not serve"):
        await asyncio.to_thread(experts.add, str(site.http.base_url), path)


async def test_an_unknown_expert_is_an_error_in_the_servers_words(site: Site) -> None:
    with pytest.raises(CommandError, match="no expert named 'nobody'"):
        await asyncio.to_thread(experts.show, str(site.http.base_url), "nobody", False)


async def test_chat_prints_the_answer_and_the_trace(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.meta.behave = says("Foxes", " are", " small.")
    await asyncio.to_thread(chat.chat, world.url, "What is a fox?", Options(trace=True))
    printed = capsys.readouterr().out
    assert printed.startswith("Foxes are small.\n")
    assert "meta" in printed
    assert "finished" in printed


async def test_chat_gives_a_script_the_whole_answer(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.meta.behave = says("Foxes", " are", " small.")
    await asyncio.to_thread(chat.chat_json, world.url, "What is a fox?", Options(trace=True))
    answer = json.loads(capsys.readouterr().out)
    assert answer["choices"][0]["message"]["content"] == "Foxes are small."
    assert [segment["model"] for segment in answer["trivium"]["segments"]] == ["meta"]


async def test_an_answer_whose_connection_breaks_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake is the whole server here: an orchestrator that is killed, and another one."""
    monkeypatch.setattr(chat, "PAUSE_SECONDS", 0.01)
    words = ("Foxes", " are", " small", ".")
    cut = says(*words, failure="cut", fail_after=2)
    async with FakeWorker(in_turn(cut, continues(*words)), "trivium") as server:
        url = server.endpoint.base_url.removesuffix("/v1")
        await asyncio.to_thread(chat.chat, url, "What is a fox?", Options(max_tokens=9))
        first, last = server.bodies
    assert (first["max_tokens"], last["max_tokens"]) == (9, 7)  # of the rest, what is left
    assert capsys.readouterr().out == "Foxes are small.\n"
    assert last["messages"][-1] == {"role": "assistant", "content": "Foxes are"}
    assert (last["continue_final_message"], last["add_generation_prompt"]) == (True, False)


async def test_each_request_has_a_connection_of_its_own() -> None:
    """One that was kept may be closed as it is used again, and a POST is not repeated."""

    body = {"model": "trivium", "messages": [], "stream": True}

    async def work(session: ClientSession) -> None:
        for _ in range(2):
            async with session.post("v1/chat/completions", json=body) as response:
                await response.read()

    async with FakeWorker(says("a"), "trivium") as server:
        url = server.endpoint.base_url.removesuffix("/v1")
        await asyncio.to_thread(with_session, work, url)
        first, second = server.received
    assert first.peer != second.peer


async def test_a_reader_that_has_enough_is_no_broken_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `trivium chat … | head -1`."""

    def closed(text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(chat, "write", closed)
    with pytest.raises(BrokenPipeError):
        await asyncio.to_thread(chat.chat, world.url, "What is a fox?", Options())
    assert len(world.meta.bodies) == 1


def test_what_a_model_writes_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = "\x1b]0;owned\x07a\tb\r\n\x9b2Jé"
    chat.write(written)
    assert capsys.readouterr().out == written  # a file gets what the model wrote
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    chat.write(written)
    assert capsys.readouterr().out == "]0;owneda\tb\n2Jé"


@pytest.mark.parametrize(
    "url", ["localhost:8000", "http://", "http://[::1", "http://localhost:8000x", "http://a:99999"]
)
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(CommandError, match="is no address of a server"):
        chat.chat(url, "Hi", Options())


def test_a_state_is_shown_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    view = dict.fromkeys(("bank", "slot", "examples", "accuracy"))
    states = ["failed: [rank0]: no", "failed: [/models/poems] at [fe80::1]"]
    experts.expert_table([{"name": "poems", "state": state, **view} for state in states])
    printed = capsys.readouterr().out
    assert all(state in printed for state in states)


async def test_an_answer_that_stays_cut_off_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "PAUSE_SECONDS", 0.01)
    closes = says("Foxes", " are", failure="close", fail_after=1)
    async with FakeWorker(closes, "trivium") as server:
        url = server.endpoint.base_url.removesuffix("/v1")
        with pytest.raises(CommandError, match="cut off; ask again"):
            await asyncio.to_thread(chat.chat, url, "What is a fox?", Options())
        assert len(server.bodies) == chat.ATTEMPTS


async def test_chat_without_a_server_says_how_to_start_one() -> None:
    options = Options(system="Be brief.", max_tokens=5)
    assert options.body([])["messages"] == [{"role": "system", "content": "Be brief."}]
    with pytest.raises(CommandError, match="start one with `make serve`"):
        await asyncio.to_thread(chat.chat, NOWHERE, "Hi", options)


def test_doctor_reports_every_check_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status = doctor.doctor(as_json=True)
    findings = json.loads(capsys.readouterr().out)
    assert {f["what"] for f in findings} >= {"Python", "vLLM", "accelerator", "memory", "cache"}
    assert status == (0 if all(f["good"] for f in findings) else 1)


def test_a_taken_port_is_refused_with_advice() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CommandError, match="choose another port with --port"):
            check_port("127.0.0.1", taken.getsockname()[1])


def test_an_ipv6_address_can_be_listened_on() -> None:
    check_port("::1", 0)


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(CommandError, match="http://HOST:PORT"):
        experts.list_experts("localhost:8000", False)


def test_a_list_that_is_not_json_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_META_URLS", "http://a,http://b")
    with pytest.raises(CommandError, match="TRIVIUM_META_URLS is not JSON"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TRIVIUM_PORT", "abc", "TRIVIUM_PORT: "),
        ("TRIVIUM_MODEL_DIRS", '"/srv/models"', r"TRIVIUM_MODEL_DIRS: it is a list: '\[\"one"),
        ("TRIVIUM_WORKER_NETWORKS", '["10.0.0.0/8", "x"]', r"TRIVIUM_WORKER_NETWORKS \(number 2\)"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CommandError, match=message):
        load_settings()


def test_networks_without_the_workers_that_are_started_here_are_refused() -> None:
    check_networks(Settings())
    only = Settings(worker_networks=(ip_network("10.0.0.0/8"),))  # type: ignore[arg-type]
    with pytest.raises(CommandError, match="leaves out 127"):
        check_networks(only)


def test_doctor_says_what_an_unknown_kernel_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIVIUM_TERNARY_KERNEL", "foo")
    kernel.cache_clear()
    assert doctor.doctor(as_json=True) == 1
    kernel.cache_clear()
    found = {entry["what"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert "TRIVIUM_TERNARY_KERNEL=foo: this machine has" in found["ternary kernel"]["advice"]


async def test_a_registration_is_followed_through_several_orchestrators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their answers by turns: the one that carries it out, one that knows nothing of it, and one
    that finds it stored."""
    running_, stored = {"state": "running", "step": "learning"}, {"accuracy": 1.0}
    answers = [
        (202, {"name": "sums", "registration": running_}),
        (404, {"error": {"message": "no expert named 'sums' is registered"}}),
        (200, {"name": "sums", "registration": running_}),
        (200, {"name": "sums", "registration": None, **stored}),
    ]

    async def answer(request: web.Request) -> web.Response:
        status, body = answers.pop(0)
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    path = tmp_path / "expert.yaml"
    worker = {"url": NOWHERE, "model": "calc"}
    manifest = {"name": "sums", "description": "d", "worker": worker, "examples": SUMS}
    path.write_text(yaml.safe_dump(manifest))
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    await asyncio.to_thread(experts.add, url, path)
    await runner.cleanup()
    assert "sums is live" in capsys.readouterr().out
    assert not answers


def test_too_little_memory_is_refused_with_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.commands.serve.NEEDED_MEMORY", 1 << 60)
    with pytest.raises(CommandError, match="GB of memory are available"):
        check_memory()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback_addresses_are_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


class Broken(io.StringIO):
    """Where nothing can be written."""

    def __init__(self, error: type[OSError]) -> None:
        super().__init__()
        self._error = error

    def write(self, _: str) -> int:
        raise self._error


@pytest.mark.parametrize("error", [OSError, BrokenPipeError])
def test_a_terminal_that_takes_nothing_ends_no_server(
    error: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.dup2", lambda *_: None)  # rich's way to silence a broken pipe
    printer = Printer(Console(file=Broken(error)), Settings())
    printer.worker("meta", WorkerStatus("live"))
