"""What a client cannot make the server do: reach addresses, read files, run code, tell secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from server import vllm_command
from server.addresses import PRIVATE_NETWORKS, Addresses
from server.admission import Admission
from server.errors import BadRequest, Forbidden, Unprocessable
from server.keys import KeyStore
from server.logs import LineFormatter, request_id
from server.settings import Settings
from server.upstream import worker_session
from server.vllm_command import Machine, bank_command, expert_command, meta_command
from server.workers import probe
from tests.fake_meta import FakeMeta
from tests.fakes import FakeWorker, refuses, says
from tests.server.conftest import request, until
from tests.server.guarded import bearer, guarded, limited, make_key
from tests.server.test_registration import SUMS, Site, running

CHAT = "/v1/chat/completions"
METADATA = "http://169.254.169.254/latest/v1"


@asynccontextmanager
async def site_with(folder: Path, **settings: Any) -> AsyncIterator[Site]:
    """A whole orchestrator with a fake meta and one fake expert."""
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(FakeMeta())
        expert = await stack.enter_async_context(FakeWorker(says("42"), "calc"))
        yield await stack.enter_async_context(running(meta, expert, folder, **settings))


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("172.31.0.1", True),
        ("192.168.1.1", True),
        ("fd12::1", True),
        ("::ffff:10.0.0.1", True),
        ("8.8.8.8", False),
        ("172.32.0.1", False),
        ("169.254.169.254", False),
        ("::ffff:169.254.169.254", False),
        ("fe80::1", False),
        ("fe80::1%1", False),
        ("fd00:ec2::254", False),
        ("100.100.100.200", False),
        ("0.0.0.0", False),
        ("::", False),
        ("224.0.0.1", False),
        ("2606:4700::1111", False),
    ],
)
def test_workers_may_be_on_loopback_and_in_private_networks(address: str, permitted: bool) -> None:
    assert Addresses(PRIVATE_NETWORKS).permits(address) is permitted


@pytest.mark.parametrize(
    ("network", "address", "permitted"),
    [
        ("0.0.0.0/0", "8.8.8.8", True),
        ("0.0.0.0/0", "169.254.169.254", False),
        ("0.0.0.0/0", "168.63.129.16", False),
        ("0.0.0.0/0", "0.0.0.0", False),
        ("::/0", "fe80::1", False),
        ("::/0", "fd00:ec2::254", False),
        ("169.254.0.0/16", "169.254.169.254", True),
        ("169.254.169.254/32", "169.254.169.254", True),
        ("fd00:ec2::254/128", "fd00:ec2::254", True),
        ("10.0.0.0/8", "127.0.0.1", False),
    ],
)
def test_link_local_addresses_have_to_be_listed_themselves(
    network: str, address: str, permitted: bool
) -> None:
    assert Addresses([ip_network(network)]).permits(address) is permitted


async def test_every_address_of_a_name_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "10.0.0.1", "169.254.169.254")
    with pytest.raises(Forbidden, match=r"169\.254\.169\.254.*TRIVIUM_WORKER_NETWORKS"):
        await Addresses(PRIVATE_NETWORKS).check_url("http://model.example/v1", "worker.url")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/v1?x=",
        "http://10.0.0.1/admin#",
        "http://10.0.0.1/admin?",
        "http://me:secret@10.0.0.1/v1",
        "ftp://10.0.0.1/v1",
    ],
)
async def test_urls_that_would_reach_another_path_are_refused(url: str) -> None:
    with pytest.raises(BadRequest) as refused:
        await Addresses(PRIVATE_NETWORKS).check_url(url, "worker.url")
    assert refused.value.param == "worker.url"
    assert "secret" not in str(refused.value)


async def test_a_name_without_an_address_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(*_: Any, **__: Any) -> None:
        raise socket.gaierror

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", nothing)
    with pytest.raises(Unprocessable, match="has no address"):
        await Addresses(PRIVATE_NETWORKS).check_url("http://nobody.invalid/v1", "worker.url")


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name that is checked have these addresses."""

    async def getaddrinfo(self: Any, host: str, port: Any, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


def connect_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let every name that is connected to have this address."""

    class Resolver(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
            result = {"hostname": host, "host": address, "port": port, "proto": 0, "flags": 0}
            return [{**result, "family": socket.AF_INET}]

        async def close(self) -> None: ...

    monkeypatch.setattr(aiohttp, "DefaultResolver", Resolver)


async def test_a_name_that_is_rebound_reaches_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It had a permitted address when it was checked; another one answers when it is used."""
    addresses = Addresses([ip_network("10.0.0.0/8")])
    connect_to(monkeypatch, "127.0.0.1")
    async with FakeWorker(says("secret")) as worker, worker_session(addresses) as session:
        port = worker.endpoint.base_url.split(":")[2]
        url = f"http://rebound.example:{port}"
        with monkeypatch.context() as patch:
            resolve_to(patch, "10.0.0.1")
            await addresses.check_url(url, "worker.url")
        with caplog.at_level(logging.WARNING):
            assert await probe(session, url, "fake") is None
        assert "refused to connect to a worker at 127.0.0.1" in caplog.text
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.post(f"{url}/chat/completions", json={})
        assert not worker.received


async def test_plain_addresses_are_checked_at_connection_too() -> None:
    """aiohttp asks no resolver about them. An expert stored long ago comes this way."""
    async with FakeWorker(says("x")) as worker:
        async with worker_session(Addresses([ip_network("10.0.0.0/8")])) as session:
            assert await probe(session, worker.endpoint.base_url, "fake") is None
        async with worker_session(Addresses(PRIVATE_NETWORKS)) as session:
            assert await probe(session, worker.endpoint.base_url, "fake") is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_operators_own_worker_may_be_anywhere(host: str) -> None:
    async with FakeWorker(says("x")) as worker:
        url = worker.endpoint.base_url.replace("127.0.0.1", host)
        addresses = Addresses([ip_network("10.0.0.0/8")], own_url=url)
        async with worker_session(addresses) as session:
            assert await probe(session, url, "fake") is not None


async def test_a_probe_follows_no_redirect() -> None:
    reached = []

    async def models(request: web.Request) -> web.Response:
        reached.append(request.path)
        if request.path == "/v1/models":
            return web.Response(status=307, headers={"Location": "/elsewhere/models"})
        return web.json_response({"data": [{"id": "m"}]})

    app = web.Application()
    app.router.add_get("/{where}/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with worker_session() as session:
        assert await probe(session, f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "m") is None
    await runner.cleanup()
    assert reached == ["/v1/models"]


async def test_a_registration_cannot_point_at_metadata(tmp_path: Path) -> None:
    async with site_with(tmp_path) as site:
        for url in (METADATA, "http://[::ffff:a9fe:a9fe]/v1", "http://0xa9fea9fe/v1"):
            response = await site.add(worker={"url": url, "model": "m"})
            assert response.status_code == 403, response.text
            assert response.json()["error"]["param"] == "worker.url"
        for url in ("file:///etc/passwd", "ftp://10.0.0.1/v1", "gopher://10.0.0.1/v1"):
            assert (await site.add(worker={"url": url, "model": "m"})).status_code == 400
        assert (await site.http.get("/v1/experts")).json()["data"] == []
        assert (await site.add()).status_code == 201


# ---------------------------------------------------------------- files and arguments


def managed(checkpoint: Path | str, **worker: Any) -> dict[str, Any]:
    worker = {"checkpoint": str(checkpoint), **worker}
    return {"name": "sums", "description": "d", "worker": worker, "examples": SUMS}


def confined(*folders: Path) -> Admission:
    return Admission(folders, Addresses(PRIVATE_NETWORKS))


async def test_checkpoints_named_over_http_lie_in_the_model_folders(tmp_path: Path) -> None:
    models, outside = tmp_path / "models", tmp_path / "outside"
    for folder in (models / "good", outside):
        folder.mkdir(parents=True)
    (models / "link").symlink_to(outside)
    admission = confined(models)
    manifest = await admission.admit(managed(models / "good"))
    assert str(manifest.worker.checkpoint) == str(models / "good")  # type: ignore[union-attr]
    escapes = (outside, models / "link", models / ".." / "outside", f"{models}-more", "/etc", ".")
    for path in escapes:
        with pytest.raises(Forbidden, match="TRIVIUM_MODEL_DIRS") as refused:
            await admission.admit(managed(path))
        assert refused.value.param == "worker.checkpoint"
    with pytest.raises(Forbidden):
        await confined().admit(managed(models / "good"))


async def test_files_outside_are_not_even_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: [hunter2")
    models = tmp_path / "models"
    models.mkdir()
    (models / "link.yaml").symlink_to(secret)
    paths = (secret, models / "link.yaml", models / ".." / "secret.yaml")
    for raw in (
        *({"path": str(path)} for path in paths),
        *(managed(models) | {"examples": str(path)} for path in paths),
    ):
        with pytest.raises(Forbidden) as refused:
            await confined(models).admit(raw)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "args",
    [
        ["--trust-remote-code"],
        ["--trust-remote-c"],
        ["--chat-template", "/etc/passwd"],
        ["--seed", "1", "/etc"],
        ["--seed=1", "/etc"],
        ["--seed", "1", "--config", "x"],
        ["/etc"],
        ["--middleware=os.system"],
        ["-h"],
        ["--"],
    ],
)
async def test_arguments_that_do_more_than_size_a_worker_are_refused(
    tmp_path: Path, args: list[str]
) -> None:
    with pytest.raises(Forbidden) as refused:
        await confined(tmp_path).admit(managed(tmp_path, args=args))
    assert refused.value.param == "worker.args"


async def test_harmless_arguments_pass(tmp_path: Path) -> None:
    args = ["--max-model-len", "2048", "--seed=1", "--enforce-eager", "--dtype", "float32"]
    manifest = await confined(tmp_path).admit(managed(tmp_path, args=args))
    assert list(manifest.worker.args) == args  # type: ignore[union-attr]


async def test_on_this_machine_any_folder_and_argument_may_be_named(tmp_path: Path) -> None:
    admission = Admission(None, Addresses(PRIVATE_NETWORKS))
    await admission.admit(managed(tmp_path, args=["--chat-template", "x"]))


@pytest.mark.parametrize(
    ("settings", "folders"),
    [
        ({}, None),
        ({"model_dirs": ["/models"]}, (Path("/models"),)),
        ({"host": "0.0.0.0", "model_dirs": ["/models"]}, (Path("/models"),)),
        ({"host": "0.0.0.0"}, (Path("/cache/models"),)),
        ({"keys": "on"}, (Path("/cache/models"),)),
        ({"keys": "off"}, (Path("/cache/models"),)),
    ],
)
def test_callers_that_may_be_elsewhere_are_confined(settings: Any, folders: Any) -> None:
    assert Settings(cache_dir="/cache", **settings).model_folders == folders


async def test_a_registration_over_http_is_confined(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    async with site_with(tmp_path, keys="off") as site:
        response = await site.http.post("/v1/experts", json=managed(tmp_path / "model"))
        assert response.status_code == 403
        assert response.json()["error"]["param"] == "worker.checkpoint"


@pytest.mark.parametrize("gpu", [False, True])
def test_no_worker_runs_a_checkpoints_code_or_opens_a_pickle(
    tmp_path: Path, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM takes the last of two arguments that contradict each other."""
    monkeypatch.setenv("TRIVIUM_API_KEY", "sk-trivium-x")
    machine = Machine(gpu=gpu, cores=2, bf16=True)
    hostile = ["--trust-remote-code", "--load-format", "pt"]
    commands = {
        "safetensors": [
            meta_command(tmp_path, 9, hostile, machine),
            expert_command("e", tmp_path, 9, hostile, machine),
        ],
        "dummy": [bank_command("bank:b", tmp_path, 9, 4, hostile, machine)],
    }
    for load_format, made in commands.items():
        for command in made:
            safe = ("--no-trust-remote-code", "--load-format", load_format)
            assert command.argv[-3:] == safe
            assert not vllm_command.SECRETS & command.env.keys()


# ---------------------------------------------------------------- headers


async def test_nothing_of_a_clients_headers_reaches_a_worker(tmp_path: Path) -> None:
    key, secret = make_key()
    async with guarded(tmp_path, key) as site:
        headers = bearer(secret) | {
            "Cookie": "session=c00kie",
            "X-Forwarded-For": "1.2.3.4",
            "X-Custom": "cust0m",
            "User-Agent": "ag3nt",
            "X-Request-Id": "r3quest",
        }
        answer = await site.world.http.post(CHAT, json=request(), headers=headers)
        assert answer.status_code == 200
        seen = str(site.world.meta.received[0].headers)
        for value in (secret, *headers.values()):
            assert value not in seen


async def test_no_page_may_call_unless_it_is_listed(tmp_path: Path) -> None:
    ask = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    key, _ = make_key()
    async with guarded(tmp_path, key) as site:
        answer = await site.world.http.options(CHAT, headers=ask)
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_listed_pages_may_call_and_no_others(tmp_path: Path) -> None:
    key, secret = make_key()
    async with guarded(tmp_path, key, cors_origins=("https://a.example",)) as site:
        http = site.world.http
        ask = {
            "Origin": "https://a.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        answer = await http.options(CHAT, headers=ask)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert "access-control-allow-credentials" not in answer.headers
        other = await http.options(CHAT, headers=ask | {"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers
        page = {"Origin": "https://a.example"}
        answer = await http.post(CHAT, json=request(), headers=bearer(secret) | page)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        refused = await http.post(CHAT, json=request(), headers=page)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://a.example"


# ---------------------------------------------------------------- the audit log


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_every_admin_call_leaves_a_line(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    store = KeyStore(Settings(state_dir=tmp_path / "state").database)
    _, admin = store.create("boss", ["admin"])
    _, chat = store.create("guest", ["chat"])
    store.close()
    async with site_with(tmp_path, keys="on") as site:
        site.http.headers.update(bearer(admin))
        assert (await site.add()).status_code == 201
        assert (await site.http.get("/v1/experts")).status_code == 200
        assert (await site.http.get("/v1/experts/sums")).status_code == 200
        assert (await site.http.delete("/v1/experts/sums")).status_code == 204
        assert (await site.http.delete("/v1/experts/sums")).status_code == 404
        refused = await site.http.delete("/v1/experts/sums", headers=bearer(chat))
        assert refused.status_code == 403
        assert (await site.http.get("/v1/experts", headers=bearer("no"))).status_code == 401
        assert (await site.http.post("/v1/experts/sing")).status_code == 405
        path = tmp_path / "state" / "logs" / "audit.log"
        written = lines(path)
        text = path.read_text()
    assert [(e["key"], e["action"], e["object"], e["outcome"]) for e in written] == [
        ("local", "experts.registration", "sums", "ok"),
        ("boss", "experts.add", "sums", "ok"),
        ("boss", "experts.list", None, "ok"),
        ("boss", "experts.show", "sums", "ok"),
        ("boss", "experts.remove", "sums", "ok"),
        ("boss", "experts.remove", "sums", "refused"),
        ("guest", "experts.remove", "sums", "refused"),
        (None, "experts.list", None, "refused"),
        ("boss", "experts.sing", None, "refused"),
    ]
    assert all(e["time"].endswith("+00:00") for e in written)
    assert written[6]["request"] == refused.headers["x-request-id"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert admin not in text
    assert chat not in text


async def test_how_a_registration_ended_is_told_where_nobody_waited(tmp_path: Path) -> None:
    async with site_with(tmp_path) as site:
        bad = site.manifest(worker={"url": "http://127.0.0.1:9/v1", "model": "m"})
        started = await site.http.post("/v1/experts", params={"wait": "false"}, json=bad)
        assert started.status_code == 202
        path = tmp_path / "state" / "logs" / "audit.log"
        await until(lambda: path.exists() and len(lines(path)) == 2)
        outcomes = {e["action"]: e["outcome"] for e in lines(path)}
        assert outcomes["experts.registration"] == "failed at: starting the worker"
        await site.http.post("/v1/experts", json={"name": "a\nb" * 500})
        last = lines(path)[-1]
        assert (last["outcome"], len(last["object"])) == ("refused", 200)


# ---------------------------------------------------------------- logs


async def test_no_secret_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, secret = limited(requests=6)
    async with guarded(tmp_path, key) as site:
        with caplog.at_level(logging.DEBUG):
            for headers in (bearer(secret), {"x-api-key": secret}, bearer(secret + "x")):
                await site.world.http.post(CHAT, json=request(), headers=headers)
                await site.world.http.post(CHAT, content=b"{", headers=headers)
            site.world.meta.behave = refuses(500, "boom")
            for _ in range(3):
                await site.world.http.post(CHAT, json=request(), headers=bearer(secret))
            await site.world.http.get("/v1/experts", headers=bearer(secret))
        ours = [r for r in caplog.records if r.name.startswith("server")]
        assert ours, "nothing was logged, so nothing was tested"
        shown = "\n".join(LineFormatter().format(record) for record in caplog.records)
        assert secret not in caplog.text
        assert secret not in shown
        assert key.digest not in caplog.text
        assert secret not in site.audit.read_text()


def record(message: str, *args: Any, **more: Any) -> logging.LogRecord:
    return logging.LogRecord("x", logging.ERROR, "f", 1, message, args, more.get("exc_info"))


def test_whatever_looks_like_a_key_is_blotted_out() -> None:
    assert LineFormatter().format(record("got %s!", "sk-trivium-Ab_c-1")) == (
        "ERROR x: got sk-trivium-…!"
    )
    try:
        raise ValueError("bad key sk-trivium-secret")
    except ValueError as error:
        told = LineFormatter().format(record("x", exc_info=(ValueError, error, None)))
    assert "secret" not in told
    assert "ValueError" in told


# ---------------------------------------------------------------- request ids


async def test_a_sane_id_of_the_client_is_kept_and_any_other_replaced(tmp_path: Path) -> None:
    async with guarded(tmp_path) as site:
        for path in ("/v1/models", "/v1/nothing", "/health"):
            answer = await site.world.http.get(path, headers={"X-Request-Id": "abc-1.2:3_Z"})
            assert answer.headers["x-request-id"] == "abc-1.2:3_Z"
        for bad in ("a b", "x" * 129, "", "a;b", "ä".encode("latin-1")):
            answer = await site.world.http.get("/v1/models", headers={"X-Request-Id": bad})
            assert answer.headers["x-request-id"].startswith("req_")
        whole = await site.world.ask(stream=True)
        assert whole.headers["x-request-id"].startswith("req_")


async def test_log_lines_say_which_request_they_belong_to(tmp_path: Path) -> None:
    written: list[str] = []

    class Written(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler = Written()
    handler.setFormatter(LineFormatter())
    log = logging.getLogger("server")
    log.addHandler(handler)
    try:
        async with guarded(tmp_path) as site:
            site.world.meta.behave = refuses(500, "boom")
            for stream in (False, True):
                ids = {"X-Request-Id": f"req-{stream}"}
                await site.world.http.post(CHAT, json=request(stream=stream, n=2), headers=ids)
    finally:
        log.removeHandler(handler)
    assert written
    assert {line.rpartition(" ")[2] for line in written} == {"[req-False]", "[req-True]"}
    assert request_id.get() is None
