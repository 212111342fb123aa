"""What a relay sends on to the owner, and what not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from aiohttp import web
from fastapi import FastAPI

from server.processes.forward import Forwarding, OwnersDoor, sent_headers
from server.wire import install_edge
from server.workers.draining import Drain
from tests.server.conftest import serving, until


class FakeOwner:
    """Says what it got, at a unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: list[web.Request] = []
        self.left = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.UnixSite(runner, str(self.path)).start()
        yield
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.received.append(request)
        if request.path == "/v1/experts/slow":
            try:
                await asyncio.sleep(60)
            finally:
                self.left.set()
        headers = {"X-Said": request.path_qs, "Date": "never", "Retry-After": "7"}
        return web.Response(status=418, text=f"got {await request.text()}", headers=headers)


@asynccontextmanager
async def relay(path: Path, drain: Drain) -> AsyncIterator[httpx.AsyncClient]:
    door = OwnersDoor(str(path))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with door.open():
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/health", lambda: "mine")
    app.add_middleware(Forwarding, door=door, drain=drain)
    install_edge(app)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as http:
        yield http


async def test_a_request_arrives_as_it_came_and_so_does_its_answer(tmp_path: Path) -> None:
    owner = FakeOwner(tmp_path / "owner")
    async with owner.running(), relay(owner.path, Drain()) as http:
        sent = {
            "Authorization": "Bearer sk",
            "X-Request-Id": "mine",
            "Host": "example.org",
        }
        answer = await http.patch("/v1/experts/a%2Fb?wait=false&x=%20", json={}, headers=sent)
        assert (answer.status_code, answer.text) == (418, "got {}")
        assert answer.headers["x-said"] == "/v1/experts/a%2Fb?wait=false&x=%20"
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["retry-after"] == "7"
        assert "never" not in answer.headers.get_list("date")
        (got,) = owner.received
        assert (got.method, got.host) == ("PATCH", "example.org")
        assert got.headers["Authorization"] == "Bearer sk"
        assert got.headers["X-Request-Id"] == "mine"
        assert got.headers["X-Forwarded-For"] == "127.0.0.1"


def test_where_a_request_came_from_is_what_the_relay_saw_whatever_the_client_says() -> None:
    forged = [(b"x-forwarded-for", b"10.9.8.7"), (b"x-forwarded-for", b"::1")]
    forged += [(b"x-forwarded-proto", b"https"), (b"x-request-id", b"not a sane one")]
    scope = {"headers": forged, "state": {"request_id": "req_1"}, "scheme": "http"}
    headers = sent_headers(scope | {"client": ("203.0.113.9", 1234)})
    assert dict(headers) == {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "http",
        "x-request-id": "req_1",
    }
    assert len(headers) == 3


async def test_what_a_relay_answers_itself_stays(tmp_path: Path) -> None:
    async with relay(tmp_path / "nobody", Drain()) as http:
        assert (await http.get("/health")).text == '"mine"'


async def test_without_an_owner_it_is_said_when_to_try_again(tmp_path: Path) -> None:
    async with relay(tmp_path / "nobody", Drain()) as http:
        answer = await http.get("/metrics")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert answer.headers["x-request-id"].startswith("req_")


async def test_a_client_that_leaves_is_left_by_the_owner_and_holds_no_drain(tmp_path: Path) -> None:
    owner, drain = FakeOwner(tmp_path / "owner"), Drain()
    async with owner.running(), relay(owner.path, drain) as http:
        call = asyncio.create_task(http.post("/v1/experts/slow", json={}))
        await until(lambda: owner.received)
        assert drain.running == 1
        call.cancel()
        async with asyncio.timeout(5):
            await owner.left.wait()
        await until(lambda: drain.running == 0)
