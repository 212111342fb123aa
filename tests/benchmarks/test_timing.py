"""Turns, rounds and ratios, on a clock that the jobs move."""

from __future__ import annotations

import pytest

from tests.benchmarks.timing import Job, Timing, interleave, ratio


class World:
    """A clock, and jobs that take as long as they are told; remembers who ran."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def job(self, name: str, *seconds: float, products: int = 1) -> Job:
        """Takes `seconds`, one after the other, the last for good."""
        left = list(seconds)

        def run() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]
            self.ran.append(name)

        return Job(run, products)

    def clock(self) -> float:
        return self.now


def test_jobs_take_turns_and_a_turn_is_long_enough() -> None:
    world = World()
    jobs = {"a": world.job("a", 1.0), "b": world.job("b", 0.25, products=5)}
    timings = interleave(jobs, least=1.0, rounds=3, clock=world.clock)
    assert timings["a"].seconds == pytest.approx((1.0, 1.0, 1.0))
    assert timings["b"].seconds == pytest.approx((0.05, 0.05, 0.05))
    turns = "".join(world.ran)
    assert turns == "aabb" + "abbbb" + "bbbba" + "abbbb"


def test_the_first_call_does_not_count() -> None:
    world = World()
    timings = interleave({"a": world.job("a", 0.9, 0.1)}, least=0.1, rounds=2, clock=world.clock)
    assert timings["a"].seconds == pytest.approx((0.1, 0.1))


def test_slow_jobs_have_fewer_rounds() -> None:
    world = World()
    timings = interleave({"a": world.job("a", 5.0)}, rounds=7, clock=world.clock)
    assert len(timings["a"].seconds) == 3
    assert len(world.ran) == 4


def test_the_ratio_is_taken_within_rounds() -> None:
    ours, other = Timing((1.0, 10.0, 1.0)), Timing((2.0, 20.0, 3.0))
    assert ratio(ours, other) == 2.0
    assert ours.median == 1.0
    assert ours.spread == 4.5
