"""What observers are told, request by request."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest

from server.api.chat.schemas import ChatCompletionRequest
from server.errors import NotReady, UnknownModel, UpstreamFailed
from server.relay.circuits import Circuits
from server.relay.connections import Connections
from server.relay.dispatch import Dispatcher
from server.relay.events import Usage
from server.relay.pool import Pool
from server.relay.snapshot import SnapshotHolder
from server.relay.upstream import Upstream
from server.seeing.observe import (
    Happening,
    LegEnded,
    LegStarted,
    Observer,
    RequestEnded,
    RequestStarted,
    fan_out,
)
from tests.fakes import ExpertToken, Reply, in_turn, refuses, says
from tests.server.conftest import ARITHMETIC, World, request

CALL = ExpertToken(ARITHMETIC)


class Recorder:
    """Keeps what it is told; all of it must belong to one request."""

    def __init__(self) -> None:
        self.told: list[Happening] = []

    def __call__(self, happening: Happening) -> None:
        self.told.append(happening)

    @property
    def ended(self) -> RequestEnded:
        last = self.told[-1]
        assert isinstance(last, RequestEnded)
        assert last.request is self.told[0]
        return last

    @property
    def legs(self) -> list[tuple[str, str | None]]:
        """Model and outcome of each leg, in the order of their ends."""
        started = [t for t in self.told if isinstance(t, LegStarted)]
        ended = [t for t in self.told if isinstance(t, LegEnded)]
        assert len(started) == len(ended), "every leg that begins ends"
        return [(leg.model, leg.segment and leg.segment.outcome) for leg in ended]


async def observed(world: World, *, leave_after: int | None = None, **fields: Any) -> Recorder:
    """What is told of one request, whose events nobody takes after `leave_after`."""
    recorder = Recorder()
    async with Connections() as connections:
        upstream = Upstream(connections)
        circuits = Circuits(upstream)
        pool = Pool(upstream, circuits)
        await drive(world.snapshots, pool, recorder, leave_after, fields)
        await circuits.close()
    return recorder


async def drive(
    snapshots: SnapshotHolder,
    pool: Pool,
    observer: Observer,
    leave_after: int | None,
    fields: dict[str, Any],
) -> None:
    body = ChatCompletionRequest.model_validate(request(**fields))
    events = Dispatcher(snapshots, pool, observer=observer).run(body)
    seen = 0
    async with aclosing(events):
        async for _ in events:
            seen += 1
            if seen == leave_after:
                break


async def test_a_handoff(world: World) -> None:
    world.meta.behave = says("The sum ", "is ", CALL)
    recorder = await observed(world)
    kinds = [type(told) for told in recorder.told]
    leg = [LegStarted, LegEnded]
    assert kinds == [RequestStarted, *leg, *leg, RequestEnded]
    assert recorder.legs == [("meta", "handoff"), ("arithmetic", "finished")]
    ended = recorder.ended
    assert ended.outcome == "finished"
    assert ended.usage == Usage(20, 4)
    first = ended.first
    assert first is not None
    assert first.model == "meta"
    assert first.first_ms is not None
    assert first.start_ms <= first.first_ms <= first.end_ms


@pytest.mark.parametrize("choices", [1, 3])
async def test_an_answer_that_is_left_tells_what_was_spent(world: World, choices: int) -> None:
    world.meta.behave = says(*["word "] * 500, delay=0.005)
    recorder = await observed(world, n=choices, leave_after=6)
    ended = recorder.ended
    assert ended.outcome == "aborted"
    assert ended.usage.prompt_tokens == 10
    assert 6 <= ended.usage.completion_tokens < 100
    assert recorder.legs == [("meta", "aborted")] * choices


async def test_an_answer_that_is_left_at_the_expert(world: World) -> None:
    world.meta.behave = says("The sum ", "is ", CALL)
    world.arithmetic.behave = says(*["4"] * 500, delay=0.005)
    recorder = await observed(world, leave_after=6)
    assert recorder.legs == [("meta", "handoff"), ("arithmetic", "aborted")]
    assert recorder.ended.usage.prompt_tokens == 20
    assert 5 <= recorder.ended.usage.completion_tokens < 100


async def test_an_answer_that_is_left_where_the_worker_counts_nothing(world: World) -> None:
    world.meta.behave = lambda body: Reply(["word "] * 500, delay=0.005, usage=False)
    recorder = await observed(world, leave_after=6)
    assert recorder.ended.usage == Usage(0, 6)


async def test_a_leg_that_takes_the_place_of_another_says_of_which(world: World) -> None:
    world.meta.behave = in_turn(says("Well, ", CALL), says("so."))
    world.arithmetic.behave = refuses(500, "boom")
    recorder = await observed(world)
    assert recorder.legs == [
        ("meta", "handoff"),
        ("arithmetic", "failed"),
        ("meta", "finished"),
    ]
    last = [told for told in recorder.told if isinstance(told, LegStarted)][-1]
    assert last.instead_of is not None
    assert (last.instead_of.model, last.instead_of.error_type) == ("arithmetic", "UpstreamFailed")


async def test_a_decision_against_every_expert_leaves_no_segment(world: World) -> None:
    recorder = await observed(world, response_format={"type": "json_object"})
    assert recorder.legs == [("meta", None), ("meta", "finished")]
    assert not any(isinstance(t, LegStarted) and t.instead_of for t in recorder.told)


async def test_an_answer_that_fails(world: World) -> None:
    world.meta.behave = refuses(500, "boom")
    recorder = await observed(world)
    assert recorder.legs == [("meta", "failed")]
    ended = recorder.ended
    assert ended.outcome == "failed"
    assert isinstance(ended.error, UpstreamFailed)
    assert ended.first is None


async def test_whoever_leaves_at_the_failure_did_not_abort(world: World) -> None:
    world.meta.behave = refuses(500, "boom")
    recorder = await observed(world, leave_after=1)
    assert recorder.ended.outcome == "failed"
    assert [segment.outcome for segment in recorder.ended.segments] == ["failed"]


async def test_a_leg_that_was_over_is_not_counted_twice_when_the_client_leaves(
    world: World,
) -> None:
    world.meta.behave = says("The sum ", "is ", CALL)
    world.arithmetic.behave = says("4", "2", " exactly", "!")
    recorder = await observed(world, stop=" ex", leave_after=6)
    assert recorder.legs == [("meta", "handoff"), ("arithmetic", "finished")]
    assert [segment.outcome for segment in recorder.ended.segments] == ["handoff", "finished"]
    assert recorder.ended.usage == Usage(20, 5)


@pytest.mark.parametrize(("model", "up"), [("nothing", True), ("trivium", False)])
async def test_what_cannot_begin_ends_too(world: World, model: str, up: bool) -> None:
    if not up:
        world.snapshots.publish((), ())
    recorder = Recorder()
    async with Connections() as connections:
        pool = Pool(upstream := Upstream(connections), Circuits(upstream))
        with pytest.raises((UnknownModel, NotReady)) as raised:
            await drive(world.snapshots, pool, recorder, None, {"model": model})
    assert [type(told) for told in recorder.told] == [RequestStarted, RequestEnded]
    assert recorder.ended.error is raised.value
    assert recorder.ended.usage == Usage()


def test_one_observer_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def fails(happening: Happening) -> None:
        raise RuntimeError("no")

    recorder, happening = Recorder(), RequestStarted("trivium")
    fan_out(fails, recorder)(happening)
    assert recorder.told == [happening]
    assert "an observer failed at RequestStarted" in caplog.text
