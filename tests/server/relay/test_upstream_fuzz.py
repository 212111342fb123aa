"""Whatever bytes a worker sends: an answer or its own error, no hang, nothing left behind.

A hundred cases of each test run in the suite; thousands with

    python -m pytest tests/server/relay/test_upstream_fuzz.py --hypothesis-profile=fuzz
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import UpstreamError
from server.relay.breaker import Breaker, BreakerPolicy
from server.relay.events import WorkerEvent
from server.relay.pool import PoolOptions
from server.relay.snapshot import Endpoint, LiveExpert
from server.relay.sse import EventTooLarge, SSEParser
from server.relay.upstream import Timeouts, _Stream, parse_event
from tests.server.conftest import ARITHMETIC, World, make_app, request, serving
from tests.server.streams import CUTS, EVERY_BYTE, bodies, split

SECONDS = 5.0
"""An answer that takes longer hangs: the worker's time-outs here are shorter."""
WORKERS_OWN = {200, 400, 409, 413, 422, 429, 502, 503, 504}
"""503: it broke in the middle of an answer, and there is no other to go on."""
FEW_MORE = 3
"""Descriptors and tasks that may come and go by themselves."""


# ---------------------------------------------------------------- the parsers


def reference(body: bytes) -> tuple[list[WorkerEvent], bool, type[Exception] | None]:
    """The events of a body by the general parser alone, byte for byte: with whether it ended well,
    and the kind of fault."""
    parser, events, finished = SSEParser(), list[WorkerEvent](), False
    for at in range(len(body)):
        for data in parser._feed_lines(body[at : at + 1]):
            if data == b"[DONE]" and finished:
                return events, True, None
            try:
                for event in parse_event(data):
                    events.append(event)
                    finished = finished or event.kind == "finished"
            except UpstreamError as error:
                if not finished:
                    return events, False, type(error)
    return events, False, None


@settings(deadline=None)
@given(bodies(), CUTS | st.just(EVERY_BYTE))
def test_any_split_gives_the_same_events(body: bytes, cuts: list[int]) -> None:
    stream, events = _Stream(), list[WorkerEvent]()
    for read in split(body, cuts):
        events += stream.take(read)
        if stream.done or stream.fault:
            break
    expected, done, fault = reference(body)
    assert events == expected
    assert stream.done == done
    assert (type(stream.fault) if stream.fault else None) is fault


def test_an_event_without_end_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.sse.MAX_EVENT_BYTES", 1000)
    stream = _Stream()
    for _ in range(11):
        assert stream.take(b"x" * 100) == []
    assert isinstance(stream.fault, EventTooLarge)


# ---------------------------------------------------------------- the whole server


@dataclass
class Script:
    """What the worker sends to every request, and how it ends."""

    pieces: list[bytes]
    chunked: bool = True
    ending: str = "close"
    head: bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        coding = b"Transfer-Encoding: chunked\r\n\r\n" if self.chunked else b"\r\n"
        writer.write(self.head + coding)
        for piece in self.pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)
            await writer.drain()
            await asyncio.sleep(0)
        if self.ending == "stall":
            await reader.read()  # until the orchestrator closes the connection, as it must
        if self.ending == "abort":
            writer.transport.abort()
        elif self.chunked and self.ending == "close":
            writer.write(b"0\r\n\r\n")


class RawWorker:
    """Reads a request and plays the script, whatever it is."""

    def __init__(self) -> None:
        self.script = Script([])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            await self.script.play(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@dataclass
class Site:
    """The API in front of the raw worker, which is meta LLM and expert."""

    loop: asyncio.Runner
    http: httpx.AsyncClient
    worker: RawWorker

    def ask(self, script: Script, fields: dict[str, Any]) -> httpx.Response:
        self.worker.script = script
        body = request("Hi", **fields)
        asking = self.http.post("/v1/chat/completions", json=body)
        return self.loop.run(asyncio.wait_for(asking, SECONDS))

    def left(self) -> tuple[int, int]:
        """Open descriptors and tasks, once those that are ending have ended."""
        gc.collect()
        self.loop.run(asyncio.sleep(0.3))
        return psutil.Process().num_fds(), len(asyncio.all_tasks(self.loop.get_loop()))


@asynccontextmanager
async def _site(runner: asyncio.Runner) -> AsyncIterator[Site]:
    worker = RawWorker()
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(worker.serve, "127.0.0.1", 0)
        stack.callback(server.close)
        endpoint = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "raw")
        url = await stack.enter_async_context(serving(make_app(_patient_world(endpoint))))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
        yield Site(runner, http, worker)


def _patient_world(endpoint: Endpoint) -> World:
    """One worker for every model, which is asked again however often it failed, and not waited
    for."""
    world, never = World(), BreakerPolicy(failures=10**9, share=2.0)
    world.snapshots.publish((endpoint,), (LiveExpert("arithmetic", ARITHMETIC, (endpoint,)),))
    world.timeouts = Timeouts(connect=1.0, first_token=0.1, stall=0.1, tail=0.05)
    world.options = PoolOptions(lambda model: world.timeouts, resume=0.0)
    world.make_breaker = lambda: Breaker(never)
    return world


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with asyncio.Runner() as runner:
        context = _site(runner)
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


FIELDS = st.fixed_dictionaries(
    {"stream": st.booleans()},
    optional={
        "n": st.sampled_from([2, 3]),
        "stop": st.sampled_from(["END", ["a", "🌒"]]),
        "max_tokens": st.integers(1, 9),
        "logprobs": st.just(True),
        "tools": st.just([{"type": "function", "function": {"name": "f"}}]),
        "trivium": st.just({"trace": True}),
    },
)
ENDINGS = st.sampled_from(["close"] * 12 + ["cut", "abort"] * 3 + ["stall"])
FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check(response: httpx.Response) -> None:
    """An answer that is whole, or an error that is the worker's."""
    assert response.status_code in WORKERS_OWN, response.text
    assert "internal_error" not in response.text
    if not response.headers["content-type"].startswith("text/event-stream"):
        assert isinstance(response.json(), dict)
        return
    *events, done, rest = response.content.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert all(isinstance(json.loads(e.removeprefix(b"data: ")), dict) for e in events)


@FUZZ
@given(bodies(), CUTS, ENDINGS, st.booleans(), FIELDS)
def test_any_stream_is_answered(
    site: Site, body: bytes, cuts: list[int], ending: str, chunked: bool, fields: dict[str, Any]
) -> None:
    check(site.ask(Script(split(body, cuts), chunked, ending), fields))


@FUZZ
@given(st.binary(max_size=60), st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n"]), FIELDS)
def test_any_response_is_answered(
    site: Site, raw: bytes, head: bytes, fields: dict[str, Any]
) -> None:
    check(site.ask(Script([raw], chunked=False, head=head), fields))


def test_nothing_is_left_behind(site: Site) -> None:
    good = Script(
        [b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n']
    )
    scripts = [good] + [Script(good.pieces, True, ending) for ending in ("cut", "abort", "stall")]

    def round() -> None:
        for script in scripts:
            for stream in (True, False):
                check(site.ask(script, {"stream": stream, "n": 2}))

    round()
    before = site.left()
    for _ in range(5):
        round()
    after = site.left()
    assert after[0] <= before[0] + FEW_MORE, "file descriptors"
    assert after[1] <= before[1] + FEW_MORE, "tasks"
