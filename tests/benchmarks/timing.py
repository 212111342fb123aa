"""Interleaved timing: contestants take turns, round after round, in one process.

What disturbs the machine for a while then disturbs all of them alike, and the ratio of two
contestants is taken within each round. Standard library only.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LEAST_SECONDS = 0.05
"""A contestant's turn is at least this long, so that a call from Python does not count."""
ROUNDS = 7
SLOW_SECONDS, SLOW_ROUNDS = 1.0, 3
"""Where one turn takes longer than this, fewer rounds do."""


@dataclass(frozen=True)
class Job:
    """What one contestant does in a turn: `run` computes `products` products."""

    run: Callable[[], object]
    products: int


@dataclass(frozen=True)
class Timing:
    """Seconds of one product, one figure for each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the range of the rounds, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / 2 / self.median


def interleave(
    jobs: Mapping[str, Job],
    least: float = LEAST_SECONDS,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time `jobs` in turns. A job is run once unmeasured, once to see how often it must run for a
    turn of `least` seconds, then once a round. Rounds start with another job each."""
    repeats: dict[str, int] = {}
    slowest = 0.0
    for name, job in jobs.items():
        first = _elapsed(job, 1, clock)
        # A second look, without what only the first call does; not where it would take long.
        once = first if first > SLOW_SECONDS else _elapsed(job, 1, clock)
        repeats[name] = max(1, math.ceil(least / max(once, 1e-9)))
        slowest = max(slowest, once)
    if slowest > SLOW_SECONDS:
        rounds = min(rounds, SLOW_ROUNDS)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            spent = _elapsed(jobs[name], repeats[name], clock)
            seconds[name].append(spent / (repeats[name] * jobs[name].products))
    return {name: Timing(tuple(figures)) for name, figures in seconds.items()}


def ratio(ours: Timing, other: Timing) -> float:
    """How many times faster `ours` is: the median over the rounds."""
    pairs = zip(ours.seconds, other.seconds, strict=True)
    return statistics.median(theirs / mine for mine, theirs in pairs)


def _elapsed(job: Job, repeats: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(repeats):
        job.run()
    return clock() - began
