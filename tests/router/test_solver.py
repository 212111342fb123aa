"""The space and the regression, where the truth is known."""

import numpy as np
import pytest

from router.head import Floats
from router.solver import STRENGTH, Labels, Space, regress

RNG = np.random.default_rng(0)
SIZE = 40
CENTRES = RNG.normal(size=(3, SIZE))
FORM = RNG.normal(size=SIZE) * 8
"""A direction that varies much and says nothing."""


def draw(count: int) -> tuple[Floats, Labels]:
    labels = np.arange(count) % 3
    noise = RNG.normal(size=(count, SIZE)) + RNG.normal(size=(count, 1)) * FORM
    return (CENTRES[labels] + noise).astype(np.float32), labels


def test_groups_are_rounder_in_the_space() -> None:
    features, labels = draw(600)
    space, mapped = Space.fit(features, labels)
    np.testing.assert_allclose(space.map(features), mapped, rtol=1e-5, atol=1e-6)

    def roundness(points: Floats) -> float:
        spread = np.linalg.eigvalsh(np.cov(points[labels == 0].T))
        return float(spread[-1] / spread.mean())

    assert roundness(mapped) < roundness(features) / 2
    assert np.square(mapped).mean() == pytest.approx(1, rel=1e-3)


def test_rows_score_raw_features_as_the_space_does() -> None:
    features, labels = draw(60)
    space, _ = Space.fit(features, labels)
    weights, bias = RNG.normal(size=(2, SIZE)).astype(np.float32), np.array([1, -1], np.float32)
    rows, offset = space.rows(weights, bias)
    expected = space.map(features) @ weights.T + bias
    np.testing.assert_allclose(features @ rows.T + offset, expected, rtol=1e-3, atol=1e-3)


def test_classes_are_found_from_fewer_examples_than_features() -> None:
    features, labels = draw(36)
    space, _ = Space.fit(features, labels)
    weights, bias = regress(space.map(features), labels, np.ones(36, np.float32))
    unseen, truth = draw(600)
    scores = space.map(unseen) @ weights.T + bias
    decided = np.concatenate([np.zeros((600, 1)), scores], axis=1).argmax(axis=1)
    assert (decided == truth).mean() > 0.85


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features, labels = draw(60)
    features[:, 5] = 3
    assert np.isfinite(Space.fit(features, labels)[1]).all()


def test_two_classes_give_one_row() -> None:
    features, labels = draw(60)
    weights, bias = regress(features, (labels > 0).astype(np.int64), np.ones(60, np.float32))
    assert weights.shape == (1, SIZE)
    assert bias.shape == (1,)


def test_the_regression_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    features, labels = draw(300)
    features /= 10
    weight = RNG.uniform(0.1, 1, size=300).astype(np.float32)
    weights, bias = regress(features, labels, weight)
    balanced = weight * (weight.sum() / 3 / np.bincount(labels, weight))[labels]
    theirs = LogisticRegression(C=STRENGTH, max_iter=1000, tol=1e-6)
    theirs.fit(features, labels, sample_weight=balanced)
    np.testing.assert_allclose(weights, theirs.coef_[1:] - theirs.coef_[0], atol=0.01)
    np.testing.assert_allclose(bias, theirs.intercept_[1:] - theirs.intercept_[0], atol=0.03)
