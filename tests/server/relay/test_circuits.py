"""Breakers of real (fake) workers: opened by failures, closed by a probe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from server.relay.breaker import Breaker, BreakerPolicy
from server.relay.circuits import Circuits
from server.relay.connections import Connections
from server.relay.snapshot import Endpoint
from server.relay.upstream import Upstream
from server.seeing.happenings import BreakerChanged
from server.seeing.observe import Happening
from tests.fakes import FakeWorker, in_turn, refuses, says
from tests.server.conftest import until

POLICY = BreakerPolicy(failures=2, first_backoff=0.02, last_backoff=0.05)


@dataclass
class Seen:
    circuits: Circuits
    worker: FakeWorker
    happenings: list[Happening]
    changes: list[bool]
    """Whether requests may go to the worker, at each change."""

    @property
    def endpoint(self) -> Endpoint:
        return self.worker.endpoint

    def fail(self) -> None:
        for _ in range(POLICY.failures):
            self.circuits.failed(self.endpoint)

    def states(self) -> list[str]:
        return [h.state for h in self.happenings if isinstance(h, BreakerChanged)]


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    happenings: list[Happening] = []
    async with FakeWorker(says("word", "more")) as worker, Connections() as connections:
        upstream = Upstream(connections)
        circuits = Circuits(upstream, happenings.append, make_breaker=lambda: Breaker(POLICY))
        seen = Seen(circuits, worker, happenings, [])
        circuits.subscribe(lambda: seen.changes.append(circuits.closed(worker.endpoint)))
        yield seen
        await circuits.close()


async def test_a_probe_that_is_answered_closes_it(seen: Seen) -> None:
    assert seen.circuits.closed(seen.endpoint)
    seen.circuits.succeeded(seen.endpoint)
    seen.fail()
    assert not seen.circuits.closed(seen.endpoint)
    await until(lambda: seen.circuits.closed(seen.endpoint))
    assert seen.states() == ["open", "half_open", "closed"]
    assert seen.changes == [False, False, True]
    assert [body["max_tokens"] for body in seen.worker.bodies] == [1]


async def test_it_is_probed_until_one_is_answered(seen: Seen) -> None:
    seen.worker.behave = in_turn(
        refuses(500, "no"), says("a", failure="cut"), refuses(429, "full"), says("a")
    )
    seen.fail()
    await until(lambda: seen.circuits.closed(seen.endpoint))
    assert len(seen.worker.received) == 3, "a worker that refuses is alive"
    seen.fail()
    assert not seen.circuits.closed(seen.endpoint), "it can open again"
    await until(lambda: seen.circuits.closed(seen.endpoint))


async def test_a_worker_that_has_left_gets_no_breaker(seen: Seen) -> None:
    """Its last streams may fail after it was forgotten."""
    seen.circuits.only(lambda endpoint: False)
    seen.fail()
    assert seen.circuits.closed(seen.endpoint)
    assert not seen.changes


async def test_a_worker_started_anew_has_a_closed_breaker(seen: Seen) -> None:
    seen.fail()
    seen.circuits.forget(seen.endpoint)
    assert seen.circuits.closed(seen.endpoint)
    assert seen.changes == [False, True]
    seen.circuits.forget(seen.endpoint)
    assert seen.changes == [False, True]
