"""Owner and relay over a real socket pair: what each knows of the other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from fastapi import FastAPI
from opentelemetry.trace import NoOpTracerProvider

from server.processes.link import Link
from server.processes.messages import State, owners_channel, relays_channel
from server.processes.relay import Owner
from server.relay.breaker import Breaker, BreakerPolicy
from server.relay.circuits import Circuits
from server.relay.counting import TokenCounter
from server.relay.dispatch import Dispatcher
from server.relay.pool import Pool
from server.relay.snapshot import Endpoint, LiveExpert, Snapshot, SnapshotHolder
from server.relay.upstream import Upstream, worker_session
from server.seeing.install import install_seeing
from server.services import Health, Services
from tests.server.conftest import until

META = Endpoint("http://127.0.0.1:1/v1", "meta")
FIRST, SECOND = (Endpoint(f"http://127.0.0.1:{port}/v1", "calc") for port in (2, 3))
CALC, STARS = LiveExpert("calc", 1001, (FIRST, SECOND)), LiveExpert("stars", 1002, (SECOND,))


@dataclass
class Pair:
    """Both ends."""

    link: Link
    owner: Owner
    snapshots: SnapshotHolder
    circuits: Circuits
    stops: list[None]

    async def tell(self, number: int, *experts: LiveExpert, version: int | None = None) -> None:
        snapshot = Snapshot(version or number, (META,), experts)
        self.link.tell(State(number, snapshot, Health("live", {e.name: "live" for e in experts})))
        await self.link.follows(number)


async def explain(
    endpoint: Endpoint, key: str, experts: Sequence[LiveExpert]
) -> Mapping[str, float]:
    if key == "broken":
        raise RuntimeError("no explanation")
    assert (endpoint, key) == (META, "key")
    return {expert.name: 0.5 for expert in experts}


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    ours, theirs = socket.socketpair()
    link, snapshots = Link(await owners_channel(ours), explain), SnapshotHolder()
    channel, stops = await relays_channel(theirs), list[None]()
    async with worker_session() as session:
        upstream, policy = Upstream(session), BreakerPolicy(failures=1)
        circuits = Circuits(upstream, make_breaker=lambda: Breaker(policy))
        seeing = install_seeing(app := FastAPI(), NoOpTracerProvider())
        owner = Owner(channel, snapshots, circuits, seeing, lambda: stops.append(None))
        dispatcher = Dispatcher(snapshots, Pool(upstream, circuits))
        app.state.services = Services(
            snapshots, dispatcher, owner, "1", 0, TokenCounter(upstream, snapshots)
        )
        tasks = [asyncio.create_task(side.listen()) for side in (link, owner)]
        yield Pair(link, owner, snapshots, circuits, stops)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await circuits.close()


async def test_a_relay_follows_and_says_so() -> None:
    async with pair() as ends:
        assert not ends.link.begun
        await ends.tell(1, CALC)
        assert ends.link.begun
        assert ends.snapshots.current == Snapshot(1, (META,), (CALC,))
        assert ends.owner.health() == Health("live", {"calc": "live"})


async def test_a_token_may_be_used_until_no_answer_can_meet_it() -> None:
    async with pair() as ends:
        await ends.tell(1, CALC)
        with ends.snapshots.lease():
            await ends.tell(2, STARS)
            assert ends.link.may_use(CALC.token_id)
        await until(lambda: not ends.link.may_use(CALC.token_id))
        assert ends.link.may_use(STARS.token_id)


async def test_what_was_told_may_be_used_before_the_relay_says_so() -> None:
    async with pair() as ends:
        await ends.tell(1)
        ends.link.tell(State(2, Snapshot(2, (META,), (CALC,)), Health("live")))
        ends.link.tell(State(3, Snapshot(3, (META,), ()), Health("live")))
        assert ends.link.may_use(CALC.token_id)
        await ends.link.follows(3)
        assert not ends.link.may_use(CALC.token_id)


async def test_news_of_health_alone_does_not_change_what_is_held() -> None:
    async with pair() as ends:
        await ends.tell(1, CALC)
        await ends.tell(2, CALC, version=1)
        assert ends.link.may_use(CALC.token_id)


async def test_a_relay_leaves_alone_what_fails_it_until_the_owner_sees_it_come_back() -> None:
    async with pair() as ends:
        await ends.tell(1, CALC, STARS)
        ends.circuits.failed(SECOND)
        current = ends.snapshots.current
        assert (current.version, [e.name for e in current.experts]) == (1, ["calc"])
        assert current.experts[0].endpoints == (FIRST,)
        await ends.tell(2)
        await ends.tell(3, CALC, STARS)
        assert ends.snapshots.current.experts == (CALC, STARS)


async def test_the_owner_explains() -> None:
    async with pair() as ends:
        assert await ends.owner.explain(META, "key", [CALC, STARS]) == {"calc": 0.5, "stars": 0.5}
        async with asyncio.timeout(5):
            assert await ends.owner.explain(META, "broken", [CALC]) == {}


async def test_metrics_and_stops() -> None:
    async with pair() as ends:
        async with asyncio.timeout(5):
            await ends.link.report()
        assert "trivium_requests_in_flight" in {family.name for family in ends.link.metrics}
        ends.link.stop()
        ends.link.stop()
        await until(lambda: len(ends.stops) == 2)


async def test_a_relay_ends_with_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()
    monkeypatch.setattr("server.processes.relay.os._exit", lambda status: ended.set())
    async with pair() as ends:
        ends.link._channel.close()
        async with asyncio.timeout(5):
            await ended.wait()
