"""Fitting a row on states whose truth is known."""

import numpy as np
import pytest

from router.fit import FALSE_ROUTE_RATE, TURN_RATE, Evidence, fit_row
from router.head import Floats

HIDDEN = 32
RNG = np.random.default_rng(0)
TOPIC, WAITING, PLACE = RNG.normal(size=(3, HIDDEN))
"""Directions: the request is the expert's; the request holds it as a second part; its turn."""


def draw(count: int, *directions: Floats) -> Floats:
    return (RNG.normal(size=(count, HIDDEN)) + sum(directions)).astype(np.float32)


def own(count: int) -> Evidence:
    return Evidence(draw(count, TOPIC), draw(0))


def two_part(count: int) -> Evidence:
    return Evidence(draw(count, WAITING), draw(count, PLACE))


def general(count: int, ends: int = 500) -> Evidence:
    return Evidence(draw(count), draw(ends))


NOBODY = Evidence(draw(0), draw(0))


def share(scores: Floats) -> float:
    return float((scores > 0).mean())


def test_each_question_is_answered_right_on_unseen_states() -> None:
    row = fit_row(own(30), two_part(60), NOBODY, general(300))
    assert share(row.scores("start", draw(500, TOPIC))) > 0.95
    assert share(row.scores("pending", draw(500, TOPIC))) > 0.7
    assert share(row.scores("pending", draw(500, WAITING))) > 0.9
    assert share(row.scores("turn", draw(500, PLACE))) > 0.95
    assert share(row.scores("start", draw(500, WAITING))) < 0.1


def test_general_traffic_stays_under_the_target_rate() -> None:
    row = fit_row(own(30), two_part(60), NOBODY, general(600))
    for question in ("start", "pending"):
        assert share(row.scores(question, draw(5000))) < 2 * FALSE_ROUTE_RATE
    assert share(row.scores("turn", draw(5000))) < 1.3 * TURN_RATE


def test_another_experts_queries_are_told_apart() -> None:
    other = RNG.normal(size=HIDDEN)
    near = Evidence(draw(40, TOPIC * 0.4, other), draw(0))
    row = fit_row(own(40), NOBODY, near, general(300))
    assert share(row.scores("start", draw(500, TOPIC * 0.4, other))) < 0.1
    assert share(row.scores("start", draw(500, TOPIC))) > 0.9


def test_without_places_to_carry_on_the_turn_never_comes() -> None:
    row = fit_row(own(25), NOBODY, NOBODY, general(100))
    assert np.isneginf(row.bias[2])
    assert share(row.scores("turn", draw(100, PLACE))) == 0


@pytest.mark.parametrize("count", [5, 10, 25])
def test_few_examples_are_enough_to_fit(count: int) -> None:
    row = fit_row(own(count), two_part(20), NOBODY, general(300))
    assert np.isfinite(row.bias).all()
    assert share(row.scores("start", draw(300, TOPIC))) > 0.6
