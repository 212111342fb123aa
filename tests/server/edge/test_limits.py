"""Limits: requests and tokens of a key, requests in flight, sizes of bodies, slow clients."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from server.edge.bodies import BodyLimit
from server.edge.keys import Key, Limits
from server.edge.limits import Allowance, Bucket, Throttle
from tests.fakes import Reply, Token, refuses, says
from tests.server.conftest import World, request, until
from tests.server.guarded import Guarded, bearer, guarded, limited, make_key

CHAT = "/v1/chat/completions"
FREE_WITHIN = 1.0
"""Seconds in which a client that left has to have given up its place."""


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


# ---------------------------------------------------------------- buckets


def test_a_bucket_starts_full_and_refills_steadily() -> None:
    clock = Clock()
    bucket = Bucket(60, clock, [0.0, 0.0])
    for _ in range(60):
        assert bucket.wait() == 0
        bucket.charge(1)
    assert bucket.wait() == pytest.approx(1)
    clock.time += 0.5
    assert bucket.wait() == pytest.approx(0.5)
    clock.time += 0.5
    assert bucket.wait() == pytest.approx(0)


def test_a_bucket_never_holds_more_than_a_minutes_worth() -> None:
    clock = Clock()
    bucket = Bucket(2, clock, [0.0, 0.0])
    clock.time += 3600
    bucket.charge(2)
    assert bucket.wait() == pytest.approx(30)


def test_what_is_overdrawn_has_to_be_made_up_first() -> None:
    clock = Clock()
    bucket = Bucket(60, clock, [0.0, 0.0])
    bucket.charge(180)
    assert bucket.wait() == pytest.approx(121)


def test_no_limits_no_buckets() -> None:
    allowance = Allowance.of(Limits(), Clock(), [])
    assert (allowance.requests, allowance.tokens) == (None, None)
    allowance.check("anyone")


# ---------------------------------------------------------------- the middleware alone


class Client:
    """Sends chat requests with one key through a `Throttle` whose clock a test moves."""

    def __init__(self, key: Key, clock: Clock) -> None:
        self.key = key
        self._throttle = Throttle(self._answer, most=10, clock=clock)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def ask(self, path: str = CHAT) -> tuple[int, dict[str, str]]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        state = {"key": self.key}
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "state": state}
        await self._throttle(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers


async def test_requests_are_let_through_again_when_retry_after_says_so() -> None:
    clock = Clock()
    client = Client(limited(requests=2)[0], clock)
    assert [(await client.ask())[0] for _ in range(3)] == [200, 200, 429]
    _, headers = await client.ask()
    assert headers["retry-after"] == "30"
    clock.time += 29.5
    assert (await client.ask())[0] == 429
    clock.time += 0.5
    assert [(await client.ask())[0] for _ in range(2)] == [200, 429]


async def test_only_chat_requests_are_counted() -> None:
    client = Client(limited(requests=1)[0], Clock())
    assert [(await client.ask("/v1/models"))[0] for _ in range(5)] == [200] * 5
    assert (await client.ask())[0] == 200


async def test_changed_limits_count_at_once() -> None:
    clock = Clock()
    client = Client(limited(requests=1)[0], clock)
    assert [(await client.ask())[0] for _ in range(2)] == [200, 429]
    client.key = limited(requests=3)[0]
    assert [(await client.ask())[0] for _ in range(4)] == [200, 200, 200, 429]
    client.key = make_key()[0]
    assert (await client.ask())[0] == 200


# ---------------------------------------------------------------- keys over HTTP


async def ask(site: Guarded, secret: str, **fields: Any) -> httpx.Response:
    return await site.world.http.post(CHAT, json=request(**fields), headers=bearer(secret))


def check_limited(response: httpx.Response, code: str = "rate_limit_exceeded") -> str:
    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 60
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", code)
    return str(error["message"])


async def test_each_key_has_requests_of_its_own(tmp_path: Path) -> None:
    (alice, secret), (bob, other) = limited(requests=2), make_key("bob", limits=Limits(1))
    async with guarded(tmp_path, alice, bob) as site:
        assert [(await ask(site, secret)).status_code for _ in range(2)] == [200, 200]
        assert "2 requests a minute" in check_limited(await ask(site, secret))
        assert (await ask(site, other)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_are_charged_as_the_answer_counts_them(tmp_path: Path, stream: bool) -> None:
    key, secret = limited(tokens=25)
    async with guarded(tmp_path, key) as site:
        site.world.meta.behave = says("a", "b")  # 10 of the prompt, 3 of the answer
        codes = [(await ask(site, secret, stream=stream)).status_code for _ in range(2)]
        assert codes == [200, 200]
        assert "25 tokens a minute" in check_limited(await ask(site, secret))


async def leave_after(site: Guarded, secret: str, events: int) -> None:
    """Ask for an answer of 1000 tokens and leave it in the middle."""
    body = request(stream=True)
    async with site.world.http.stream("POST", CHAT, json=body, headers=bearer(secret)) as left:
        seen = 0
        async for line in left.aiter_lines():
            seen += line.startswith("data:")
            if seen == events:
                break
    await until(lambda: site.world.meta.received[-1].aborted)


@pytest.mark.parametrize("usage", [True, False])
async def test_an_answer_that_is_left_is_charged_as_far_as_it_came(
    tmp_path: Path, usage: bool
) -> None:
    """40 tokens are not used up by a few of them, but by 31 and the prompt's; where the worker
    counts nothing, deltas are counted and the prompt is estimated."""
    key, secret = limited(tokens=40)
    async with guarded(tmp_path, key) as site:
        site.world.meta.behave = says(*["word "] * 1000, delay=0.01, usage=usage)
        await leave_after(site, secret, 5)
        site.world.meta.behave = says(*["word "] * 1000, delay=0.002, usage=usage)
        await leave_after(site, secret, 31)
        check_limited(await ask(site, secret))


async def test_a_prompt_that_nobody_counted_is_charged_by_estimate(
    tmp_path: Path,
) -> None:
    key, secret = limited(tokens=40)
    async with guarded(tmp_path, key) as site:
        site.world.meta.behave = says("late", delay=60, usage=False)
        body = request("x" * 120)
        asked = site.world.http.post(CHAT, json=body, headers=bearer(secret), timeout=0.2)
        with pytest.raises(httpx.ReadTimeout):
            await asked
        await until(lambda: site.world.meta.received[0].aborted)
        check_limited(await ask(site, secret))


async def test_a_request_that_no_model_answers_costs_no_tokens(tmp_path: Path) -> None:
    key, secret = limited(tokens=1)
    async with guarded(tmp_path, key) as site:
        site.world.meta.behave = refuses(400, "no")
        for _ in range(3):
            assert (await ask(site, secret, stream=True)).status_code == 400
        assert (await ask(site, secret, n=0)).status_code == 400
        assert (await ask(site, secret, model="other")).status_code == 404
        site.world.snapshots.publish((), ())
        assert (await ask(site, secret)).status_code == 503


# ---------------------------------------------------------------- in flight


@asynccontextmanager
async def one_at_a_time(folder: Path) -> AsyncIterator[World]:
    async with guarded(folder, max_in_flight=1) as site:
        site.world.meta.behave = says(*["word "] * 1000, delay=0.01)
        yield site.world


async def free(world: World, within: float = FREE_WITHIN) -> None:
    """Wait until the one place is free, by taking it."""
    world.meta.behave = says("Hello")
    async with asyncio.timeout(within):
        while (await world.ask()).status_code == 429:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_what_does_not_fit_is_refused_at_once(tmp_path: Path) -> None:
    async with one_at_a_time(tmp_path) as world:
        first = asyncio.create_task(world.ask())
        await until(lambda: world.meta.received)
        message = check_limited(await asyncio.wait_for(world.ask(), 0.5), "server_busy")
        assert "1 requests are in flight" in message
        assert (await world.http.get("/v1/models")).status_code == 200, "only chat is counted"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await free(world)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_place_within_a_second(
    tmp_path: Path, stream: bool
) -> None:
    async with one_at_a_time(tmp_path) as world:
        async with httpx.AsyncClient(base_url=world.url) as client:
            leaving = asyncio.create_task(client.post(CHAT, json=request(stream=stream)))
            await until(lambda: world.meta.received)
            await asyncio.sleep(0.1)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        await free(world)
        assert world.meta.received[0].aborted, "the worker goes on writing for nobody"


async def test_a_client_that_leaves_while_it_sends_frees_its_place(tmp_path: Path) -> None:
    async with one_at_a_time(tmp_path) as world:
        writer = await send_head(world, "Content-Length: 1000")
        writer.write(b'{"messages": [')
        await writer.drain()
        await until_busy(world)
        writer.close()
        await free(world)


async def test_places_are_given_back_after_errors(tmp_path: Path) -> None:
    async with one_at_a_time(tmp_path) as world:
        world.meta.behave = refuses(400, "no")
        for fields in ({}, {"n": 0}, {"model": "other"}, {"stream": True}):
            assert (await world.ask(**fields)).status_code in (400, 404)
        await free(world)


async def until_busy(world: World) -> None:
    async with asyncio.timeout(2):
        while (await world.ask(n=0)).status_code != 429:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------- bodies


async def send_head(world: World, *headers: str) -> asyncio.StreamWriter:
    """Open a connection and send the head of a chat request, without its body."""
    return (await connect(world, *headers))[1]


async def connect(world: World, *headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(world.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = (f"POST {CHAT} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers)
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    await writer.drain()
    return reader, writer


async def check_413(reader: asyncio.StreamReader) -> None:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)
    assert b" 413 " in head.splitlines()[0]
    length = next(line for line in head.splitlines() if line.lower().startswith(b"content-length"))
    body = json.loads(await reader.readexactly(int(length.split(b":")[1])))
    assert body["error"]["code"] == "request_too_large"
    assert "TRIVIUM_MAX_BODY_BYTES" in body["error"]["message"]


@pytest.mark.parametrize("length", ["2001", "9" * 30])
async def test_a_length_over_the_limit_is_refused_before_the_body(
    tmp_path: Path, length: str
) -> None:
    async with guarded(tmp_path, max_body_bytes=2000) as site:
        reader, writer = await connect(site.world, f"Content-Length: {length}")
        if length == "2001":
            await check_413(reader)
        else:  # the HTTP parser itself gives up on such a number
            assert b" 4" in (await asyncio.wait_for(reader.readline(), 2))
        writer.close()


async def test_who_has_no_key_sends_little_where_none_is_needed(tmp_path: Path) -> None:
    key, secret = make_key()
    async with guarded(tmp_path, key) as site:
        for path in ("/livez", "/health", "/"):
            answer = await site.world.http.post(path, content=b"x" * 20_000)
            assert answer.status_code == 413, path
        known = await site.world.http.post("/livez", content=b"x" * 20_000, headers=bearer(secret))
        assert known.status_code == 405


async def test_a_body_in_chunks_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    """The body is never complete, so nothing can have parsed it."""
    async with guarded(tmp_path, max_body_bytes=2000) as site:
        reader, writer = await connect(site.world, "Transfer-Encoding: chunked")
        for _ in range(3):
            writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            await writer.drain()
        await check_413(reader)
        writer.close()


async def test_a_body_of_just_the_limit_is_taken(tmp_path: Path) -> None:
    async with guarded(tmp_path, max_body_bytes=2000) as site:
        body = json.dumps(request()).encode()
        exact = body + b" " * (2000 - len(body))

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, 2000, 300):
                yield exact[start : start + 300]

        headers = {"Content-Type": "application/json"}
        for content in (exact, chunks()):
            answer = await site.world.http.post(CHAT, content=content, headers=headers)
            assert answer.status_code == 200


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def receive() -> Message:
        await asyncio.sleep(3600)
        raise AssertionError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the routes must not see it")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": CHAT, "headers": []}
    await BodyLimit(app, most=10, seconds=0.05)(scope, receive, send)
    assert sent[0]["status"] == 408


# ---------------------------------------------------------------- slow readers


class Pulled(Sequence[Token]):
    """Very many large tokens; tells how many the worker has written."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._token, self.written = count, {"content": "x" * size}, 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        self.written = max(self.written, index + 1)
        return self._token


async def test_a_client_that_does_not_read_stops_the_reading_from_the_worker(
    tmp_path: Path,
) -> None:
    """What fits into the sockets' buffers is read, then nothing more; when the client reads on,
    the answer goes on."""
    tokens = Pulled(4000, 32_768)  # 125 MiB: more than all buffers on the way
    async with guarded(tmp_path) as site:
        world = site.world
        world.meta.behave = lambda body: Reply(tokens)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.connect(("127.0.0.1", int(world.url.rsplit(":", 1)[1])))
        body = json.dumps(request(stream=True)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        client.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: tokens.written)
        stalled = await settled(tokens)
        assert stalled < len(tokens) // 2, "the worker's stream is read into memory"
        assert tokens.written == stalled
        await asyncio.to_thread(read_some, client, 20_000_000)
        await until(lambda: tokens.written > stalled, 5)
        client.close()
        await asyncio.wait_for(world.meta.received[0].over.wait(), FREE_WITHIN)
        assert world.meta.received[0].aborted


async def settled(tokens: Pulled) -> int:
    """Wait until nothing was written for a second; what was written so far."""
    before, still = -1, 0
    async with asyncio.timeout(20):
        while still < 10:
            await asyncio.sleep(0.1)
            still = still + 1 if tokens.written == before else 0
            before = tokens.written
    return before


def read_some(client: socket.socket, size: int) -> None:
    while size > 0:
        data = client.recv(1 << 16)
        assert data, "the connection was closed"
        size -= len(data)
