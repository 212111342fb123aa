"""Turns: never more than the places, nobody starves, places are not taken too often."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.vllm_plugin.bank.turns import Figures, Turns

TURN = 8.0
GAP = 4
"""The longest time between two decisions, in seconds. Times are whole here, so sums are exact."""
Wanted = list[int]
steps = st.lists(
    st.tuples(st.integers(0, GAP), st.lists(st.integers(0, 6), unique=True)), max_size=80
)
"""Seconds since the last decision, and the experts wanted at this one."""


@given(places=st.integers(1, 4), steps=steps)
def test_a_place_for_each_only_while_there_are_places(
    places: int, steps: list[tuple[int, Wanted]]
) -> None:
    turns, now = Turns(places, TURN), 0
    for gap, wanted in steps:
        now += gap
        placed = turns.decide(now, wanted)
        assert len(placed) <= places
        assert set(turns.queue) == set(wanted) - placed
        if turns.queue:  # no place is free, and none is kept by one that has nothing to do
            assert len(placed) == places
            assert placed <= set(wanted)


@given(places=st.integers(1, 4), steps=steps)
def test_nobody_waits_longer_than_the_bound(places: int, steps: list[tuple[int, Wanted]]) -> None:
    turns, now = Turns(places, TURN), 0
    latest: dict[int, float] = {}  # by when each that waits must have a place
    for gap, wanted in steps:
        now += gap
        placed = turns.decide(now, wanted)
        for place, expert in enumerate(turns.queue, 1):
            latest.setdefault(expert, now + math.ceil(place / places) * (TURN + GAP))
            assert place <= max(len(wanted) - places, 0)
        latest = {e: t for e, t in latest.items() if e in wanted and e not in placed}
        assert all(now <= time for time in latest.values())


@given(places=st.integers(1, 4), steps=steps)
def test_places_are_taken_once_a_turn_at_most(places: int, steps: list[tuple[int, Wanted]]) -> None:
    turns, now = Turns(places, TURN), 0
    taken = [(0, 0)]  # when, and how many until then
    before: frozenset[int] = frozenset()
    lost = 0
    for gap, wanted in steps:
        now += gap
        placed = turns.decide(now, wanted)
        lost += len((before - placed) & set(wanted))
        before = placed
        taken.append((now, turns.figures(now).taken))
    assert taken[-1][1] == lost
    for place, (begin, count) in enumerate(taken):
        for end, later in taken[place + 1 :]:
            assert later - count <= places * (math.floor((end - begin) / TURN) + 1)


@given(places=st.integers(1, 4), steps=steps)
def test_the_figures_add_up(places: int, steps: list[tuple[int, Wanted]]) -> None:
    turns, now = Turns(places, TURN), 0
    since: dict[int, int] = {}
    ended: list[int] = []
    given_places, before = 0, frozenset[int]()
    for gap, wanted in steps:
        now += gap
        placed = turns.decide(now, wanted)
        given_places += len(placed - before)
        for expert in set(wanted) - before:
            since.setdefault(expert, now)
        for expert in set(since) - set(turns.queue):
            ended.append(now - since.pop(expert))
        for expert in turns.queue:
            since.setdefault(expert, now)  # its place was taken now
        before = placed
    figures = turns.figures(now + 1)
    assert (figures.changes, figures.waits) == (given_places, len(ended))
    assert (figures.waited_seconds, figures.longest_seconds) == (sum(ended), max(ended, default=0))
    assert figures.waiting == len(since)
    assert figures.oldest_seconds == max((now + 1 - t for t in since.values()), default=0)


def test_holders_keep_their_places_while_nobody_else_wants_them() -> None:
    turns = Turns(2, TURN)
    assert turns.decide(0, [1, 2]) == {1, 2}
    assert turns.decide(100, [2]) == {1, 2}
    assert turns.decide(200, []) == {1, 2}
    assert turns.decide(300, [1]) == {1, 2}
    assert turns.figures(300).changes == 2


def test_the_place_unused_longest_goes_first() -> None:
    turns = Turns(2, TURN)
    turns.decide(0, [1, 2])
    turns.decide(1, [1])
    turns.decide(2, [])
    assert turns.decide(3, [3]) == {1, 3}
    assert turns.decide(4, [3, 2]) == {2, 3}


def test_with_everybody_wanted_the_turns_go_round() -> None:
    turns = Turns(2, 1.0)
    seen = [sorted(turns.decide(now, range(5))) for now in range(6)]
    assert seen == [[0, 1], [2, 3], [0, 4], [1, 2], [3, 4], [0, 1]]
    assert turns.figures(5).longest_seconds == 2  # ceil((5 - 2) / 2) turns
    assert turns.figures(5).taken == 10


def test_a_turn_begins_when_the_place_is_wanted() -> None:
    turns = Turns(1, TURN)
    turns.decide(0, [1])
    turns.decide(50, [])
    assert turns.decide(100, [1, 2]) == {1}
    assert turns.decide(100 + TURN - 1, [1, 2]) == {1}
    assert turns.decide(100 + TURN, [1, 2]) == {2}


def test_one_that_gives_up_waits_no_more() -> None:
    turns = Turns(1, TURN)
    turns.decide(0, [1, 2])
    turns.decide(5, [1])
    assert turns.queue == ()
    assert turns.figures(6) == Figures(changes=1, waits=2, waited_seconds=5, longest_seconds=5)


def test_a_queue_is_served_in_order() -> None:
    turns = Turns(1, 1.0)
    placed = [turns.decide(now, [1, 3, 2]) for now in range(4)]
    assert [set(place) for place in placed] == [{1}, {3}, {2}, {1}]
    assert all(a != b for a, b in pairwise(placed))


@pytest.mark.parametrize(("places", "turn"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, math.nan)])
def test_nonsense_is_refused(places: int, turn: float) -> None:
    with pytest.raises(ValueError, match="at least 1 place"):
        Turns(places, turn)
