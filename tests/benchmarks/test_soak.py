"""A short soak: the long one is `python -m tests.benchmarks.soak`."""

from __future__ import annotations

from tests.benchmarks import soak

SECONDS, WARM = 25.0, 12
FEW_MORE = 8
"""Descriptors of streams that happen to be in flight."""


def test_memory_and_descriptors_stay() -> None:
    seen = soak.run(SECONDS, clients=8)
    assert not seen.errors
    assert seen.streams > 100
    assert seen.left > 10
    assert seen.growth(WARM) < soak.MOST_GROWTH
    assert seen.more_descriptors(WARM) <= FEW_MORE


def test_growth_is_seen() -> None:
    """What leaks is told from what stays."""
    leaking = soak.Soak(rss=[100 + i for i in range(60)], descriptors=list(range(60)))
    assert leaking.growth(10) > soak.MOST_GROWTH
    assert leaking.more_descriptors(10) > FEW_MORE
