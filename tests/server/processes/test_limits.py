"""Keys and limits of a server of two processes hold for both together."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import httpx
import psutil
import pytest
import pytest_asyncio

from server.edge.keys import KeyStore, Limits, Scope
from tests.server.guarded import bearer
from tests.server.processes.sites import SLOW_TEXT, Many, ask, begun, many, text_of
from tests.server.workers.test_registration import SUMS

pytestmark = pytest.mark.asyncio(loop_scope="module")

GONE_SECONDS = 10
"""For a process that is to end."""
NOTICED_SECONDS = 15
"""For a change of the keys, which every process looks for by itself."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Many]:
    folder = tmp_path_factory.mktemp("limits")
    (folder / "state").mkdir()
    make_key(f"sqlite:///{folder}/state/registry.db", "first", "chat")
    async with many(folder, keys="on", max_in_flight="3") as running:
        yield running


def make_key(database: str, name: str, scope: Scope, limits: Limits | None = None) -> str:
    store = KeyStore(database)
    _, secret = store.create(name, [scope], limits=limits)
    store.close()
    return secret


async def key_for(site: Many, name: str, scope: Scope = "chat", **limits: int) -> str:
    """A new key, once both processes know it."""
    secret = make_key(f"sqlite:///{site.state('registry.db')}", name, scope, Limits(**limits))
    await until_all(site, secret, lambda status: status != 401)
    return secret


async def until_all(site: Many, secret: str, so: Callable[[int], bool]) -> None:
    """Wait until both processes answer a request with that key in such a way."""
    async with site.through_each() as clients, asyncio.timeout(NOTICED_SECONDS):
        for http in clients:
            while not so((await http.get("/v1/models", headers=bearer(secret))).status_code):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_requests_a_minute_are_counted_together(site: Many) -> None:
    site.write_at_once()
    headers = bearer(await key_for(site, "rpm", requests_per_minute=4))
    async with site.through_each() as (owner, relay):
        for http in (owner, relay, relay, owner):
            http.headers.update(headers)
            assert await text_of(http) == "42"
        for http in (owner, relay):
            refused = await ask(http)
            assert refused.status_code == 429
            assert "has 4 requests a minute" in refused.text


async def test_tokens_a_minute_are_counted_together(site: Many) -> None:
    site.write_at_once()
    headers = bearer(await key_for(site, "tpm", tokens_per_minute=20))
    async with site.through_each() as (owner, relay):
        for http, status in ((owner, 200), (relay, 200), (owner, 429), (relay, 429)):
            http.headers.update(headers)
            assert (await ask(http)).status_code == status


async def test_requests_in_flight_are_counted_together(site: Many) -> None:
    site.write_slowly()
    site.meta.writer.received.clear()
    headers = bearer(await key_for(site, "many"))
    async with AsyncExitStack() as stack:
        (relay,) = site.relays()
        places = (site.process, site.process, relay, relay)
        *busy, fourth = [
            await stack.enter_async_context(site.through(place, headers=headers))
            for place in places
        ]
        running = [asyncio.create_task(text_of(http)) for http in busy]
        await begun(site.meta.writer, 3)
        refused = await ask(fourth)
        assert refused.status_code == 429
        assert "3 requests are in flight" in refused.text
        assert await asyncio.gather(*running) == [SLOW_TEXT] * 3
        site.write_at_once()
        assert await text_of(fourth) == "42"


async def test_what_a_killed_relay_had_in_flight_is_in_flight_no_more(site: Many) -> None:
    site.write_slowly(30)
    site.meta.writer.received.clear()
    headers = bearer(await key_for(site, "killed"))
    (relay,) = site.relays()
    async with AsyncExitStack() as stack:
        ways = [site.through(relay, headers=headers) for _ in range(3)]
        clients = [await stack.enter_async_context(way) for way in ways]
        running = [asyncio.create_task(ask(http)) for http in clients]
        await begun(site.meta.writer, 3)
        relay.kill()
        lost = await asyncio.gather(*running, return_exceptions=True)
        assert [type(error) for error in lost] == [httpx.RemoteProtocolError] * 3
    site.write_at_once()
    await asyncio.sleep(1)
    async with httpx.AsyncClient(base_url=site.url, headers=headers) as http:
        assert await text_of(http) == "42"
    await site.until_up()


async def test_a_revoked_key_is_revoked_everywhere(site: Many) -> None:
    secret = await key_for(site, "revoked")
    store = KeyStore(f"sqlite:///{site.state('registry.db')}")
    store.revoke("revoked")
    store.close()
    await until_all(site, secret, lambda status: status == 401)


async def test_the_owner_checks_what_a_relay_forwards(site: Many) -> None:
    chat, admin = await key_for(site, "chatter"), await key_for(site, "ops", "admin")
    async with site.through_each() as (_, relay):
        # What a relay adds to a request, a client cannot say itself.
        forged = {"x-forwarded-for": "10.1.2.3", "x-request-id": "forged"}
        for headers, status in (
            ({}, 401),
            (bearer("sk-trivium-made-up") | forged, 401),
            (bearer(chat), 403),
            (bearer(admin), 200),
        ):
            answer = await relay.get("/v1/experts", headers=headers)
            assert answer.status_code == status, answer.text
        large = site.manifest("large", [*SUMS, "x" * (9 << 20)])
        refused = await relay.post("/v1/experts", json=large, headers=bearer(admin))
        assert refused.status_code == 413
    lines = [json.loads(line) for line in site.state("logs/audit.log").read_text().splitlines()]
    assert [(line["key"], line["status"]) for line in lines][-4:] == [
        (None, 401),
        (None, 401),
        ("chatter", 403),
        ("ops", 413),  # a look that is allowed leaves no line
    ]


async def test_nothing_outlives_an_owner_that_is_killed(site: Many) -> None:
    """Keep it the last of this module: it ends the server."""
    relays = site.relays()
    site.process.kill()
    site.process.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, relays, GONE_SECONDS)
    assert not alive
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", site.port))
