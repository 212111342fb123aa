"""Figures of decisions that can be counted by hand."""

import numpy as np
import pytest

from router.evaluate import figures

TRUTH = np.array([0, 0, 0, 0, 1, 1, 2, 2])
DECIDED = np.array([0, 0, 0, 2, 1, 0, 2, 1])


def test_shares_and_the_confusion_matrix() -> None:
    found = figures(TRUTH, DECIDED, ["a", "b"])
    assert found.n == 8
    assert found.accuracy == pytest.approx(5 / 8)
    assert found.expert_recall == pytest.approx(2 / 4)
    assert found.false_route_rate == pytest.approx(1 / 4)
    assert found.confusion == [[3, 0, 1], [1, 1, 0], [0, 1, 1]]
    assert found.per_expert["a"] == {"recall": 0.5, "precision": 0.5, "n": 2}
    assert found.ece is None


def test_a_decision_that_is_always_right_but_unsure_is_badly_calibrated() -> None:
    chances = np.full((8, 3), 0.2)
    chances[np.arange(8), TRUTH] = 0.6
    found = figures(TRUTH, TRUTH, ["a", "b"], chances)
    assert found.ece == pytest.approx(0.4)
    assert [(b.count, b.accuracy) for b in found.reliability] == [(8, 1.0)]


def test_an_expert_nobody_asked_for_is_no_division_by_zero() -> None:
    found = figures(TRUTH, DECIDED, ["a", "b", "c"])
    assert found.per_expert["c"] == {"recall": 0.0, "precision": 0.0, "n": 0}
