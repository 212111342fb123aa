"""A small world for the server's tests: fake workers, the real API over HTTP, clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import settings
from openai import AsyncOpenAI
from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from server.api.routes import api_router
from server.relay.breaker import Breaker
from server.relay.circuits import Circuits
from server.relay.connections import Connections
from server.relay.counting import TokenCounter
from server.relay.dispatch import Dispatcher
from server.relay.pool import Pool, PoolOptions
from server.relay.snapshot import Endpoint, LiveExpert, SnapshotHolder
from server.relay.upstream import Timeouts, Upstream
from server.seeing.install import install_seeing
from server.seeing.observe import Happening, fan_out
from server.services import Health, Services
from server.wire import install_edge
from server.workers.draining import Drain
from tests.fakes import FakeWorker, says

settings.register_profile("fuzz", max_examples=5000)

ARITHMETIC, ASTRONOMY = 1001, 1002
STARTED = 1_700_000_000


@dataclass
class FakeStatus:
    """Says what a test wants it to say."""

    meta: str = "live"
    experts: dict[str, str] = field(default_factory=dict)

    def health(self) -> Health:
        return Health(self.meta, self.experts)


async def explain(endpoint: Endpoint, key: str, experts: Sequence[LiveExpert]) -> dict[str, float]:
    """As the fleet, for a meta worker whose decisions are always the same."""
    return {"arithmetic": 0.75, "astronomy": 0.125}


Guard = Callable[[FastAPI], None]
"""Adds middleware to an application."""


def make_app(
    world: World,
    guard: Guard | None = None,
    drain: Drain | None = None,
    provider: TracerProvider | None = None,
) -> FastAPI:
    """The smallest application around the API."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Connections() as connections:
            upstream = Upstream(connections)
            seen = fan_out(seeing.observer, world.happenings.append)
            circuits = Circuits(upstream, seen, make_breaker=world.make_breaker)
            world.pool = Pool(upstream, circuits, world.options, seen)
            world.dispatcher = dispatcher = Dispatcher(
                world.snapshots, world.pool, explain=explain, observer=seen
            )
            app.state.services = Services(
                world.snapshots,
                dispatcher,
                world.status,
                "1.2.3",
                STARTED,
                TokenCounter(upstream, world.snapshots),
                drain or Drain(),
            )
            yield
            await circuits.close()

    app = FastAPI(lifespan=lifespan)
    if guard is not None:
        guard(app)
    seeing = install_seeing(app, provider or NoOpTracerProvider())
    install_edge(app)
    app.include_router(api_router())
    return app


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """The base URL of `app` on a free port, served in the test's own event loop."""
    config = uvicorn.Config(
        app, port=0, log_level="critical", timeout_graceful_shutdown=1, lifespan="on"
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    await server.shutdown()


@dataclass
class Streamed:
    """A streamed answer, taken apart."""

    chunks: list[dict[str, Any]]
    done: bool

    @property
    def choices(self) -> list[dict[str, Any]]:
        return [choice for chunk in self.chunks for choice in chunk.get("choices", ())]

    def text(self, index: int = 0) -> str:
        return "".join(c["delta"].get("content") or "" for c in self.choices if c["index"] == index)

    def finish(self, index: int = 0) -> list[str]:
        return [
            c["finish_reason"] for c in self.choices if c["index"] == index and c["finish_reason"]
        ]


class World:
    """One meta LLM and two experts, all fake, behind the real API."""

    def __init__(self) -> None:
        self.meta = FakeWorker(says("Hello"), "meta-model")
        self.arithmetic = FakeWorker(says("42"), "arithmetic-model")
        self.astronomy = FakeWorker(says("Moon"), "astronomy-model")
        self.snapshots = SnapshotHolder()
        self.status = FakeStatus(experts={"arithmetic": "live", "astronomy": "live"})
        self.timeouts = Timeouts(connect=1.0, first_token=1.0, stall=1.0, tail=0.2)
        self.options = PoolOptions(lambda model: self.timeouts, resume=3.0)
        self.make_breaker: Callable[[], Breaker] = Breaker
        self.pool: Pool
        self.dispatcher: Dispatcher
        self.happenings: list[Happening] = []
        self.url = ""
        self.http: httpx.AsyncClient

    @asynccontextmanager
    async def openai(self) -> AsyncIterator[AsyncOpenAI]:
        """The official client."""
        url = f"{self.url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            yield client

    def publish(self) -> None:
        self.snapshots.publish(
            self.meta.endpoints,
            (
                LiveExpert("arithmetic", ARITHMETIC, self.arithmetic.endpoints),
                LiveExpert("astronomy", ASTRONOMY, self.astronomy.endpoints),
            ),
        )

    async def ask(self, question: str = "Hi", **fields: Any) -> httpx.Response:
        return await self.http.post("/v1/chat/completions", json=request(question, **fields))

    async def answer(self, question: str = "Hi", **fields: Any) -> dict[str, Any]:
        """The body of a non-streaming answer."""
        response = await self.ask(question, **fields)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    async def stream(self, question: str = "Hi", **fields: Any) -> Streamed:
        response = await self.ask(question, stream=True, **fields)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [e for e in response.text.split("\n\n") if e]
        assert all(e.startswith("data: ") for e in events)
        data = [e.removeprefix("data: ") for e in events]
        done = data[-1] == "[DONE]"
        assert data.count("[DONE]") == done
        return Streamed([json.loads(d) for d in data if d != "[DONE]"], done)


def request(question: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": "trivium", "messages": [{"role": "user", "content": question}]} | fields


async def until(condition: Callable[[], object], seconds: float = 2.0) -> None:
    """Wait for something that no event tells."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving_world(
    guard: Guard | None = None, provider: TracerProvider | None = None
) -> AsyncIterator[World]:
    """A world whose application stands behind `guard`; `provider` gets its spans."""
    world = World()
    async with AsyncExitStack() as stack:
        for worker in (world.meta, world.arithmetic, world.astronomy):
            await stack.enter_async_context(worker)
        world.publish()
        app = make_app(world, guard, provider=provider)
        world.url = await stack.enter_async_context(serving(app))
        world.http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=world.url, timeout=10, verify=False)
        )
        yield world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving_world() as world:
        yield world
