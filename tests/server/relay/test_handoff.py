"""The state machine alone: events in, actions out."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import (
    ContextTooLong,
    DeadlineExceeded,
    ShuttingDown,
    TriviumError,
    UpstreamFailed,
    UpstreamRejected,
)
from server.relay.events import (
    Considered,
    Event,
    Failed,
    Finished,
    RawDelta,
    Routed,
    TextDelta,
    Usage,
    WorkerEvent,
)
from server.relay.handoff import (
    MAX_FAILURES,
    MAX_FRUITLESS,
    Action,
    Done,
    Emit,
    Handoff,
    LegEnded,
    LegFailed,
    StartLeg,
    total_usage,
)
from server.relay.legs import Leg, Plan, Target
from server.relay.snapshot import Endpoint, LiveExpert

META = Target("meta", (Endpoint("http://meta/v1", "m"),))
MATHS = LiveExpert("maths", 101, (Endpoint("http://maths/v1", "a"),))
MOON = LiveExpert("moon", 102, (Endpoint("http://moon/v1", "b"),))
BROKEN = LegFailed(UpstreamFailed("broken"))
ANOTHER = LegFailed(UpstreamFailed("broken"), another=True)


class Driven:
    """A machine with a clock of one second an event, and what it did."""

    def __init__(self, **plan: Any) -> None:
        self.machine = Handoff(Plan(META, **{"experts": (MATHS, MOON)} | plan), began=0.0)
        self.events: list[Event] = []
        self.legs: list[Leg] = []
        self.done = False
        self.now = 0.0
        self._take(self.machine.start(0.0))

    def on(self, *events: WorkerEvent | LegEnded | LegFailed) -> Driven:
        for event in events:
            assert not self.done
            self.now += 1
            self._take(self.machine.on(event, self.now))
        return self

    def _take(self, actions: list[Action]) -> None:
        self.events += [a.event for a in actions if isinstance(a, Emit)]
        self.legs += [a.leg for a in actions if isinstance(a, StartLeg)]
        self.done = self.done or any(isinstance(a, Done) for a in actions)

    @property
    def leg(self) -> Leg:
        return self.legs[-1]

    @property
    def text(self) -> str:
        return "".join(e.text for e in self.events if isinstance(e, TextDelta))


def call(expert: LiveExpert, tokens: int = 1) -> list[Any]:
    return [Usage(10, tokens), Finished("stop", expert.token_id), LegEnded()]


def test_a_plain_answer() -> None:
    d = Driven(budget=9).on(TextDelta("Hi"), Usage(10, 2), Finished("stop"), LegEnded())
    assert d.done
    assert d.events == [TextDelta("Hi"), Finished("stop")]
    assert len(d.legs) == 1
    assert d.leg.experts == (MATHS, MOON)
    assert total_usage([d.machine]) == Usage(10, 2)


def test_handoff_carries_text_and_budget() -> None:
    d = Driven(budget=9).on(TextDelta("a"), TextDelta("b"), *call(MATHS, tokens=3))
    assert d.events[-1] == Routed("maths")
    leg = d.leg
    assert (leg.target.name, leg.at_home, leg.prefix) == ("maths", False, "ab")
    assert (leg.max_tokens, leg.spent, leg.experts) == (7, 2, ())
    d.on(TextDelta("c"), Usage(12, 2), Finished("length"), LegEnded())
    assert (d.text, d.done) == ("abc", True)
    assert d.events[-1:] == [Finished("length")]
    assert total_usage([d.machine]) == Usage(22, 4)
    first, second = d.machine.segments
    assert (first.start, first.end, first.tokens, first.outcome) == (0, 2, 2, "handoff")
    assert (second.start, second.end, second.tokens, second.outcome) == (2, 3, 2, "finished")
    assert (second.start_ms, second.end_ms, second.token_id) == (5000.0, 9000.0, 101)


def test_an_expert_is_not_routed_again() -> None:
    d = Driven().on(*call(MATHS), Usage(1, 1), Finished("stop", MOON.token_id), LegEnded())
    assert d.events[-1] == Finished("stop", MOON.token_id)
    assert len(d.legs) == 2


def test_a_stop_token_of_the_client_is_no_handoff() -> None:
    d = Driven().on(Finished("stop", 7), LegEnded())
    assert d.events == [Finished("stop", 7)]


def test_expert_token_at_the_length_limit_is_no_handoff() -> None:
    d = Driven().on(Finished("length", MATHS.token_id), LegEnded())
    assert d.done


def test_a_failed_expert_is_masked_and_the_meta_goes_on() -> None:
    d = Driven(budget=9).on(TextDelta("a"), *call(MATHS, 2), TextDelta("b"), Usage(12, 1), BROKEN)
    assert d.leg == Leg(META, "text", prefix="ab", max_tokens=7, spent=2, experts=(MOON,))
    assert [s.outcome for s in d.machine.segments] == ["handoff", "failed"]


def test_position_start_does_not_route_after_text() -> None:
    d = Driven(position="start").on(TextDelta("a"), BROKEN)
    assert d.leg.experts == ()
    d = Driven(position="start").on(*call(MATHS), BROKEN)
    assert (d.leg.experts, d.leg.position) == ((MOON,), "start")


def test_failures_are_bounded() -> None:
    d = Driven().on(TextDelta("a"), BROKEN)
    for _ in range(MAX_FAILURES - 2):
        d.on(TextDelta("b"), BROKEN)
    assert not d.done
    d.on(TextDelta("c"), BROKEN)
    assert d.done
    assert d.events[-1] == Failed(BROKEN.error)


def test_failures_that_bring_nothing_are_fewer() -> None:
    d = Driven().on(TextDelta("a"), *[BROKEN] * MAX_FRUITLESS)
    assert not d.done
    assert d.on(BROKEN).events[-1] == Failed(BROKEN.error)


def test_another_replica_goes_on_with_the_same_expert() -> None:
    d = Driven(budget=9).on(TextDelta("a"), *call(MATHS, 2), TextDelta("b"), Usage(12, 1), ANOTHER)
    leg = d.leg
    assert (leg.target.name, leg.at_home, leg.prefix) == ("maths", False, "ab")
    assert (leg.max_tokens, leg.spent, leg.experts) == (7, 2, ())
    d.on(BROKEN)
    assert (d.leg.target.name, d.leg.experts) == ("meta", (MOON,))
    assert [s.model for s in d.machine.segments] == ["meta", "maths", "maths"]


def test_another_replica_of_the_meta_decides_again() -> None:
    d = Driven(structured=True, budget=50).on(Usage(3, 0), ANOTHER)
    assert (d.leg.purpose, d.leg.max_tokens, len(d.leg.experts)) == ("decision", 1, 2)
    d.on(*call(MATHS), ANOTHER)
    assert (d.leg.purpose, d.leg.target.name, d.leg.max_tokens) == ("whole", "maths", 50)


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("late"), ShuttingDown("the server is being stopped")]
)
def test_nobody_goes_on_after_the_end(error: TriviumError) -> None:
    d = Driven().on(*call(MATHS), TextDelta("a"), LegFailed(error, another=True))
    assert d.events[-1] == Failed(error)


def test_home_failing_first_is_final() -> None:
    assert Driven().on(BROKEN).events == [Failed(BROKEN.error)]


def test_home_refusing_to_resume_is_final() -> None:
    refusal = UpstreamRejected("no")
    d = Driven().on(*call(MATHS), BROKEN, LegFailed(refusal))
    assert d.events[-1] == Failed(refusal)


def test_budget_spent_by_an_expert_that_then_fails() -> None:
    d = Driven(budget=3).on(*call(MATHS), TextDelta("abc"), Usage(9, 3), BROKEN)
    assert d.events[-2:] == [TextDelta("abc"), Finished("length")]
    assert d.done


def test_context_too_long_drops_the_limit_once() -> None:
    too_long = LegFailed(ContextTooLong("too long"))
    d = Driven(budget=5).on(TextDelta("a"), *call(MATHS, 2), too_long)
    assert (d.leg.target.name, d.leg.max_tokens) == ("maths", None)
    d.on(too_long)
    assert (d.leg.target.name, d.leg.experts, d.leg.max_tokens) == ("meta", (MOON,), 4)
    d.on(too_long, too_long)
    assert d.events[-1] == Finished("length")
    assert Driven(budget=5).on(too_long).events == [Failed(too_long.error)]


def test_decision_then_the_whole_request() -> None:
    d = Driven(structured=True, budget=50)
    assert (d.leg.purpose, d.leg.max_tokens, d.leg.position) == ("decision", 1, "start")
    d.on(TextDelta("junk"), *call(MATHS))
    assert (d.leg.purpose, d.leg.target.name, d.leg.max_tokens) == ("whole", "maths", 50)
    d.on(BROKEN)
    assert (d.leg.purpose, d.leg.target.name, d.leg.experts) == ("whole", "meta", ())
    d.on(RawDelta({"tool_calls": []}), BROKEN)
    assert d.done
    assert [e.kind for e in d.events] == ["routed", "raw", "failed"]


def test_decision_for_the_meta_costs_nothing() -> None:
    d = Driven(structured=True).on(TextDelta("x"), Usage(10, 1), Finished("length"), LegEnded())
    assert (d.leg.purpose, d.leg.target) == ("whole", META)
    d.on(TextDelta("{}"), Usage(14, 2), Finished("stop"), LegEnded())
    assert total_usage([d.machine]) == Usage(14, 2)


def test_logprobs_without_the_expert_token() -> None:
    entry = {"token": "<|expert_0|>", "logprob": 0.0}
    word = {"token": "a", "logprob": -1.0}
    for wanted in (True, False):
        d = Driven(logprobs=wanted).on(TextDelta("a", logprobs={"content": [word]}))
        d.on(Finished("stop", MATHS.token_id), TextDelta("", logprobs={"content": [entry]}))
        d.on(LegEnded(), Finished("stop"), LegEnded())
        seen = [e.logprobs for e in d.events if isinstance(e, TextDelta)]
        assert seen == [{"content": [word]} if wanted else None]


def test_a_decision_carries_its_probabilities() -> None:
    considered = Considered({MATHS.name: 0.9, "other": 0.05})
    d = Driven().on(TextDelta("a"), considered, *call(MATHS, 2), Finished("stop"), LegEnded())
    meta, expert = d.machine.segments
    assert meta.chances == considered.chances
    assert (expert.token_id, expert.probability, expert.chances) == (MATHS.token_id, 0.9, None)


def test_an_answer_of_the_meta_alone_tells_what_it_considered() -> None:
    d = Driven().on(TextDelta("a"), Considered({MATHS.name: 0.1}), Finished("stop"), LegEnded())
    assert [s.chances for s in d.machine.segments] == [{MATHS.name: 0.1}]


def test_segments_are_clipped_to_a_stop_that_began_earlier() -> None:
    d = Driven(stops=("END",)).on(TextDelta("a EN"), *call(MATHS, 2), TextDelta("D"))
    assert d.events[-1] == Finished("stop", "END")
    assert d.text == "a "
    assert [(s.start, s.end) for s in d.machine.segments] == [(0, 2), (2, 2)]


def test_held_text_is_sent_at_the_end() -> None:
    d = Driven(stops=("END",)).on(TextDelta("a EN"), Finished("length"), LegEnded())
    assert d.text == "a EN"


def test_usage_of_several_choices_counts_the_prompt_once() -> None:
    plain = Driven().on(Usage(10, 2), Finished("stop"), LegEnded())
    routed = Driven().on(*call(MATHS), Usage(12, 3), Finished("stop"), LegEnded())
    assert total_usage([plain.machine, routed.machine]) == Usage(22, 5)


def test_cached_and_reasoning_tokens_are_summed() -> None:
    d = Driven().on(Usage(10, 1, 8), Finished("stop", MATHS.token_id), LegEnded())
    d.on(Usage(12, 3, 4, 2), Finished("stop"), LegEnded())
    assert total_usage([d.machine]) == Usage(22, 3, 12, 2)


@pytest.mark.parametrize("structured", [True, False])
def test_without_experts_there_is_one_plain_leg(structured: bool) -> None:
    d = Driven(experts=(), structured=structured)
    assert d.leg.purpose == ("whole" if structured else "text")
    assert d.leg.experts == ()
