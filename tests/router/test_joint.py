"""The joint fit on features whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router.head import Background, Floats
from router.joint import (
    LEAST,
    JointFit,
    Training,
    _threshold,
    decisions,
    fit_joint,
    probabilities,
)
from router.solver import Labels

SIZE, EXPERTS = 48, 3
CENTRES = np.random.default_rng(1).normal(size=(EXPERTS + 1, SIZE)) * 0.7


def draw(count: int, labels: Labels, seed: int) -> Floats:
    noise = np.random.default_rng(seed).normal(size=(count, SIZE))
    return (CENTRES[labels] + noise).astype(np.float32)


def training(each: int, none: int, seed: int = 0, names: bool = False, kinds: int = 1) -> Training:
    labels = np.repeat(np.arange(EXPERTS + 1), [none] + [each] * EXPERTS)
    features = draw(len(labels), labels, seed)
    shifts = np.repeat((CENTRES[1:] - CENTRES.mean(axis=0))[:, None], 6, axis=1)
    return Training(
        features=features,
        labels=labels,
        kinds=np.arange(len(labels)) % kinds,
        views=features[:4] + 0.1,
        view_of=np.arange(4),
        shifts=shifts.astype(np.float32) if names else np.empty((EXPERTS, 0, SIZE), np.float32),
        general=draw(60, np.zeros(60, np.int64), seed + 1),
        general_kind=kinds - 1,
        two_part=np.empty((0, SIZE), np.float32),
    )


def unseen(seed: int = 9) -> tuple[Floats, Labels]:
    labels = np.arange(2000) % (EXPERTS + 1)
    return draw(len(labels), labels, seed), labels


def test_unseen_queries_reach_their_expert() -> None:
    features, truth = unseen()
    decided = decisions(fit_joint(training(40, 120)).scores(features))
    assert (decided == truth).mean() > 0.9


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_near_misses_stay_under_their_rate(rate: float) -> None:
    features, truth = unseen()
    fit = fit_joint(training(40, 300), near_miss_rate=rate)
    routed = decisions(fit.scores(features))[truth == 0] > 0
    assert routed.mean() < 1.7 * rate + 0.015


def test_without_near_misses_the_shipped_queries_set_the_threshold() -> None:
    features, truth = unseen()
    routed = {}
    for rate in (0.0, 0.3):
        fit = fit_joint(training(40, 10), false_route_rate=rate, near_miss_rate=1.0)
        routed[rate] = (decisions(fit.scores(features))[truth == 0] > 0).mean()
    assert routed[0.0] < 0.05
    assert routed[0.0] <= routed[0.3]


def test_a_name_helps_where_examples_are_few() -> None:
    features, truth = unseen()
    shares = {}
    for names in (False, True):
        fits = [fit_joint(training(2, 60, seed, names)) for seed in range(4)]
        shares[names] = np.mean([(decisions(f.scores(features)) == truth).mean() for f in fits])
    assert shares[True] > shares[False] + 0.02


def test_probabilities_are_those_of_unseen_queries() -> None:
    features, truth = unseen()
    fit = fit_joint(training(60, 180))
    chances = fit.probabilities(fit.scores(features))
    assert chances.sum(axis=1) == pytest.approx(1)
    sure = chances.max(axis=1)
    right = chances.argmax(axis=1) == truth
    assert abs(sure.mean() - right.mean()) < 0.06


def test_the_threshold_is_in_the_bias_and_not_in_the_probability() -> None:
    scores = np.array([[-0.5, -3.0]], np.float32)
    assert decisions(scores).tolist() == [0]
    assert probabilities(scores, 1.0)[0, 1] > probabilities(scores, 1.0)[0, 0]
    rows = np.eye(2, dtype=np.float32), np.array([1, 0], np.float32)
    fit = JointFit(*rows, 0.0, Background.none(2))
    assert decisions(fit.scores(np.array([[0.5, 1.0]], np.float32))).tolist() == [1]


def test_one_kind_of_no_expert_needs_no_background() -> None:
    features, _ = unseen()
    fit = fit_joint(training(20, 60))
    assert fit.background.log_odds(features) == pytest.approx(0)


def test_no_expert_of_many_kinds_is_told_apart_better() -> None:
    """Queries of no expert lie all around those of the experts."""
    rng = np.random.default_rng(5)
    around = rng.normal(size=(12, SIZE)) * 1.2
    kinds = np.arange(240) % len(around)
    none = (around[kinds] + rng.normal(size=(240, SIZE))).astype(np.float32)
    asked = (around[np.arange(1200) % 12] + rng.normal(size=(1200, SIZE))).astype(np.float32)
    mine = draw(900, 1 + np.arange(900) % EXPERTS, 11)
    recall = {}
    for count in (1, 12):
        data = training(8, 240)
        features = np.concatenate([none, data.features[240:]])
        data = replace(
            data,
            features=features,
            views=features[:4],
            kinds=np.concatenate([kinds % count, np.zeros(8 * EXPERTS, np.int64)]),
            general=none[:60],
            general_kind=count,
        )
        fit = fit_joint(data)
        assert (decisions(fit.scores(asked)) > 0).mean() < 0.1
        right = decisions(fit.scores(mine)) == 1 + np.arange(900) % EXPERTS
        recall[count] = right.mean()
    assert recall[12] > recall[1] + 0.01


def test_a_question_whose_first_part_is_nobodys_is_not_taken_whole() -> None:
    """Its second part is an expert's, so it looks much like that expert's queries."""
    before = np.random.default_rng(7).normal(size=SIZE).astype(np.float32) * 1.2
    both = 1 + np.arange(300) % EXPERTS
    asked, truth = unseen()
    later = 1 + np.arange(600) % EXPERTS
    taken = {}
    for shown in (0, 300):
        two_part = (draw(300, both, 21) + before)[:shown]
        fit = fit_joint(replace(training(40, 120), two_part=two_part))
        taken[shown] = (decisions(fit.scores(draw(600, later, 22) + before)) > 0).mean()
        assert (decisions(fit.scores(asked)) == truth).mean() > 0.9
    assert taken[0] > 0.7
    assert taken[300] < 0.2


def test_a_winner_is_never_nearly_nobody() -> None:
    """On few examples a threshold far below would make the fewest mistakes."""
    scores = np.array([[-4.0, -6.0], [-3.0, -6.0], [-5.0, -4.0], [-9.0, -9.0]], np.float32)
    labels = np.array([1, 1, 2, 0])
    general = np.full((50, 2), -9.0, np.float32)
    assert _threshold(scores, general, labels, 0.02, 0.04) == LEAST
