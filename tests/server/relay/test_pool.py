"""Replicas: which is asked, what happens when it fails, deadlines, hedges, the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from server.errors import ShuttingDown
from server.relay.snapshot import LiveExpert
from server.seeing.happenings import BreakerChanged, Hedged, Retried
from server.seeing.observe import LegStarted
from tests.fakes import Failure, FakeWorker, Reply, continues, in_turn, refuses, says
from tests.server.conftest import ARITHMETIC, World, until
from tests.server.relay.test_dispatch import CALL, content
from tests.server.relay.test_faults import BROKEN

FAILURES: list[Failure] = ["cut", "close", "error", "garbage", "abort", "stall"]


@pytest.fixture
async def second(world: World) -> AsyncIterator[FakeWorker]:
    """A second replica of the meta LLM."""
    async with FakeWorker(says("second"), "meta-model") as worker:
        yield worker


def recoveries(world: World) -> list[tuple[str, str]]:
    """Who failed, and who went on, of every leg that took the place of a failed one."""
    legs = [h for h in world.happenings if isinstance(h, LegStarted)]
    return [(leg.instead_of.model, leg.model) for leg in legs if leg.instead_of is not None]


def publish(world: World, *metas: FakeWorker, experts: tuple[FakeWorker, ...] = ()) -> None:
    live = [LiveExpert("arithmetic", ARITHMETIC, tuple(e.endpoint for e in experts))]
    world.snapshots.publish(tuple(m.endpoint for m in metas), tuple(live if experts else ()))


def either(world: World, second: FakeWorker, behave: Any, otherwise: Any) -> FakeWorker:
    """Whichever replica is asked first behaves in one way, the other in another; the second."""
    asked: list[int] = []

    def of(number: int) -> Any:
        def behaviour(body: dict[str, Any]) -> Reply:
            asked.append(number)
            reply: Reply = (behave if asked[0] == number else otherwise)(body)
            return reply

        return behaviour

    world.meta.behave, second.behave = of(0), of(1)
    publish(world, world.meta, second)
    return second


FIRST_BYTE = [
    *(pytest.param(says(failure=how), id=how) for how in BROKEN),
    *(pytest.param(refuses(status, "no"), id=str(status)) for status in (429, 500, 503, 404)),
]


@pytest.mark.parametrize("failure", FIRST_BYTE)
async def test_a_replica_that_fails_before_its_first_token(
    world: World, second: FakeWorker, failure: Any
) -> None:
    either(world, second, failure, says("whole"))
    assert content(await world.answer()) == "whole"
    assert (len(world.meta.received), len(second.received)) == (1, 1)
    assert [h.model for h in world.happenings if isinstance(h, Retried)] == ["meta"]


async def test_a_dead_replica(world: World, second: FakeWorker) -> None:
    publish(world, world.meta, second)
    await world.meta.stop()
    for number in range(6):
        assert content(await world.answer(f"question {number}")) == "second"


async def test_a_refusal_is_the_clients_affair(world: World, second: FakeWorker) -> None:
    either(world, second, refuses(400, "top_k"), says("whole"))
    assert (await world.ask()).status_code == 400
    assert len(world.meta.received) + len(second.received) == 1


async def test_all_replicas_busy(world: World, second: FakeWorker) -> None:
    either(world, second, refuses(429, "full"), refuses(429, "full"))
    response = await world.ask(stream=True)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    assert len(world.meta.received) + len(second.received) == 2


@pytest.mark.parametrize("how", BROKEN)
async def test_another_replica_of_the_meta_goes_on(
    world: World, second: FakeWorker, how: Failure
) -> None:
    text = ("one ", "two ", "three ", "four")
    either(world, second, says(*text, failure=how, fail_after=2), continues(*text))
    streamed = await world.stream(max_tokens=9)
    assert (streamed.text(), streamed.finish()) == ("".join(text), ["stop"])
    bodies = [*world.meta.bodies, *second.bodies]
    rest, whole = sorted(body["max_tokens"] for body in bodies)
    assert whole == 9
    assert rest == 7 or (how == "cut" and rest > 7), "a reset may lose what was on its way"
    assert recoveries(world) == [("meta", "meta")]


@pytest.mark.parametrize("how", BROKEN)
async def test_another_replica_of_the_expert_goes_on(world: World, how: Failure) -> None:
    async with FakeWorker(continues("4", "2", "!"), "arithmetic-model") as other:
        world.meta.behave = continues("sum ", CALL, "never")
        replicas = (world.arithmetic, other)
        publish(world, world.meta, experts=replicas)
        world.arithmetic.behave = other.behave = in_turn(
            says("4", "2", "!", failure=how, fail_after=1),
            lambda body: (
                Reply(["2", "!"]) if body["messages"][-1]["content"] == "sum 4" else Reply(["?"])
            ),
        )
        assert content(await world.answer()) == "sum 42!"
        assert sorted(len(replica.received) for replica in replicas) == [1, 1]
        assert len(world.meta.received) == 1


async def test_without_another_replica_the_meta_goes_on(world: World) -> None:
    async with FakeWorker(refuses(500, "no"), "arithmetic-model") as other:
        world.meta.behave = continues("sum ", CALL, "42", "!")
        world.arithmetic.behave = says("4", failure="cut", fail_after=1)
        publish(world, world.meta, experts=(world.arithmetic, other))
        other.behave = in_turn(refuses(500, "no"), says("4", failure="cut", fail_after=1))
        assert content(await world.answer()) == "sum 42!"
        assert world.meta.bodies[-1]["messages"][-1]["content"].startswith("sum ")
        assert world.meta.bodies[-1].get("stop_token_ids", []) == []


async def test_an_answer_waits_for_its_only_model(world: World) -> None:
    """The meta is killed in mid-answer and comes back at the same address."""
    text = ("one ", "two ", "three")
    world.meta.behave = in_turn(says(*text, delay=0.05), continues(*text))
    task = asyncio.create_task(world.stream())
    await until(lambda: world.meta.received)
    await asyncio.sleep(0.08)
    await world.meta.kill()
    await asyncio.sleep(0.3)
    await world.meta.start()
    streamed = await task
    assert (streamed.text(), streamed.finish()) == ("one two three", ["stop"])


async def test_where_no_model_is_left_one_error_event(world: World) -> None:
    world.options = replace(world.options, resume=0.3)
    world.pool._options = world.options
    world.meta.behave = says("one ", "two ", "three", delay=0.05)
    task = asyncio.create_task(world.stream())
    await until(lambda: world.meta.received)
    await asyncio.sleep(0.08)
    await world.meta.kill()
    streamed = await task
    assert streamed.done
    assert streamed.finish() == []
    assert [c["error"]["code"] for c in streamed.chunks if "error" in c] == ["not_ready"]


async def test_conversations_stay_at_their_replica(world: World, second: FakeWorker) -> None:
    world.meta.behave = says("first")
    publish(world, world.meta, second)
    answers = {q: content(await world.answer(q)) for q in map(str, range(12))}
    assert set(answers.values()) == {"first", "second"}
    for question, answer in answers.items():
        assert content(await world.answer(question)) == answer


async def test_a_busy_favourite_is_left(world: World, second: FakeWorker) -> None:
    world.meta.behave = second.behave = says(*["word "] * 1000, delay=0.05)
    publish(world, world.meta, second)
    tasks = [asyncio.create_task(world.ask(max_tokens=3000, stream=True)) for _ in range(6)]
    await until(lambda: len(world.meta.received) + len(second.received) == 6)
    assert len(world.meta.received) == len(second.received) == 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: not world.pool._outstanding)


# ---------------------------------------------------------------- deadlines


@pytest.mark.parametrize("fail_after", [0, 2])
async def test_the_deadline_of_a_request(world: World, fail_after: int) -> None:
    world.meta.behave = says("a ", "b ", "c", failure="stall", fail_after=fail_after)
    streamed = await world.ask(stream=True, trivium={"timeout": 0.4})
    if fail_after:
        assert '"code":"deadline_exceeded"' in streamed.text
        assert streamed.text.endswith("data: [DONE]\n\n")
    else:
        assert streamed.status_code == 504
    assert len(world.meta.received) == 1
    await asyncio.wait_for(world.meta.received[0].over.wait(), 1)
    assert not [h for h in world.happenings if isinstance(h, BreakerChanged)]
    assert not recoveries(world)


async def test_a_deadline_ends_answers_that_flow(world: World) -> None:
    world.meta.behave = says(*["word "] * 1000, delay=0.02)
    streamed = await world.stream(trivium={"timeout": 0.3})
    assert streamed.chunks[-1]["error"]["code"] == "deadline_exceeded"
    assert 0 < len(streamed.text()) < 200


async def test_prefill_may_take_longer_than_a_token(world: World) -> None:
    world.timeouts = replace(world.timeouts, first_token=2.0, stall=0.3)
    world.meta.behave = says("late", delay=0.8, role=False)
    assert content(await world.answer(max_tokens=1)) == "late"
    assert len(world.meta.received) == 1


# ---------------------------------------------------------------- breakers


async def test_a_worker_that_keeps_failing_is_left_alone_until_a_probe_succeeds(
    world: World, second: FakeWorker
) -> None:
    publish(world, world.meta, second)
    world.meta.behave = refuses(500, "broken")
    endpoint, questions = world.meta.endpoint, 0
    while BreakerChanged(endpoint, "open") not in world.happenings and questions < 100:
        questions += 1  # the port decides which questions are the worker's
        assert content(await world.answer(f"question {questions}")) == "second"
    assert BreakerChanged(endpoint, "open") in world.happenings
    for number in range(10):
        assert content(await world.answer(f"another {number}")) == "second"
    asked = len(world.meta.received)
    assert asked < 10
    world.meta.behave = says("first")
    await until(lambda: BreakerChanged(endpoint, "closed") in world.happenings)
    answers = {content(await world.answer(f"question {number}")) for number in range(20)}
    assert answers == {"first", "second"}


# ---------------------------------------------------------------- hedges


async def test_a_slow_beginning_is_hedged(world: World, second: FakeWorker) -> None:
    world.pool._options = replace(world.options, hedge=0.1)
    either(world, second, says("slow", delay=30), says("quick"))
    assert content(await world.answer()) == "quick"
    assert Hedged("meta", won=True) in world.happenings
    received = [*world.meta.received, *second.received]
    await asyncio.wait_for(asyncio.gather(*(r.over.wait() for r in received)), 1)
    assert sum(r.aborted for r in received) == 1
    await until(lambda: not world.pool._outstanding)


async def test_a_hedge_that_loses_is_closed(world: World, second: FakeWorker) -> None:
    world.pool._options = replace(world.options, hedge=0.1)
    either(world, second, says("slow", delay=0.3), says("slower", delay=30))
    assert content(await world.answer()) == "slow"
    assert Hedged("meta", won=False) in world.happenings
    received = [*world.meta.received, *second.received]
    await asyncio.wait_for(asyncio.gather(*(r.over.wait() for r in received)), 1)


async def test_a_client_that_leaves_closes_both(world: World, second: FakeWorker) -> None:
    world.pool._options = replace(world.options, hedge=0.05)
    either(world, second, says("slow", delay=30), says("slow", delay=30))
    task = asyncio.create_task(world.ask(stream=True))
    await until(lambda: world.meta.received and second.received)
    task.cancel()
    received = [*world.meta.received, *second.received]
    await asyncio.wait_for(asyncio.gather(*(r.over.wait() for r in received)), 1)
    await until(lambda: not world.pool._outstanding)


# ---------------------------------------------------------------- the end


async def test_the_end_of_the_server_is_an_error_event(world: World) -> None:
    world.meta.behave = in_turn(says("a ", "b ", failure="stall", fail_after=2), says(delay=30))
    running = asyncio.create_task(world.stream())
    await until(lambda: world.meta.received)
    await asyncio.sleep(0.1)
    beginning = asyncio.create_task(world.ask("another", stream=True))
    await until(lambda: len(world.meta.received) == 2)
    world.pool.end(ShuttingDown("the server is being stopped"))
    streamed = await running
    assert streamed.text() == "a b "
    assert streamed.chunks[-1]["error"]["code"] == "shutting_down"
    assert streamed.done
    assert (await beginning).status_code == 503
    assert (await world.ask("later")).status_code == 503
    assert len(world.meta.received) == 2
