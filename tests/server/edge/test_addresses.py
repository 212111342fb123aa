"""Where workers may be: addresses, names that are rebound, redirects."""

from __future__ import annotations

import asyncio
import logging
import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from server.edge.addresses import PRIVATE_NETWORKS, Addresses
from server.errors import BadRequest, Forbidden, Unprocessable
from server.relay.upstream import worker_session
from server.workers.worker import probe
from tests.fakes import FakeWorker, says
from tests.server.guarded import site_with

METADATA = "http://169.254.169.254/latest/v1"


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
        addresses = Addresses([ip_network("10.0.0.0/8")], own_urls=[url])
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
