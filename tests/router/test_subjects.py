"""Sorting queries of no expert into kinds, on features whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from router.head import Floats
from router.solver import Labels
from router.subjects import LEAST, Subjects

SIZE, SUBJECTS = 32, 5
CENTRES = np.random.default_rng(1).normal(size=(SUBJECTS, SIZE)) * 1.5


def draw(labels: Labels, seed: int) -> Floats:
    noise = np.random.default_rng(seed).normal(size=(len(labels), SIZE))
    return (CENTRES[labels] + noise).astype(np.float32)


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    of = np.repeat(np.arange(SUBJECTS), 12)
    chat = np.random.default_rng(4).normal(size=(60, SIZE)).astype(np.float32)
    return Subjects.fit(draw(np.tile(of, 2), 2), np.tile(of, 2), chat)


def no_views() -> tuple[Floats, Labels]:
    return np.empty((0, SIZE), np.float32), np.empty(0, np.int64)


def test_queries_of_one_subject_are_of_one_kind(subjects: Subjects) -> None:
    truth = np.repeat([4, 0, 2], 30)
    kinds = subjects.kinds(draw(truth, 7), *no_views())
    assert set(kinds) == {0, 1, 2}
    for subject in (0, 2, 4):
        assert np.bincount(kinds[truth == subject]).max() >= 27


def test_rare_subjects_join_the_nearest_kind(subjects: Subjects) -> None:
    truth = np.repeat([0, 1], [30, LEAST - 1])
    assert set(subjects.kinds(draw(truth, 8), *no_views())) == {0}
    assert subjects.kinds(draw(np.array([1, 3]), 8), *no_views()).tolist() == [0, 0]


def test_a_view_has_its_say(subjects: Subjects) -> None:
    asked = draw(np.repeat([0, 1], 20), 5)
    unclear = np.zeros((1, SIZE), np.float32)
    view = 2 * CENTRES[1:2].astype(np.float32)
    kinds = subjects.kinds(np.concatenate([asked, unclear]), view, np.array([40]))
    assert kinds[40] == np.bincount(kinds[20:40]).argmax()


def test_an_experts_own_subjects_are_those_of_many_of_its_queries(subjects: Subjects) -> None:
    own = draw(np.repeat([3, 1, 0], [14, 12, 4]), 9)
    assert subjects.common(own, *no_views()).tolist() == [1, 3]
    assert subjects.common(own[:0], *no_views()).tolist() == []


def test_a_query_is_nearest_to_its_subject(subjects: Subjects) -> None:
    truth = np.repeat([2, 4], 20)
    assert (subjects.nearest(draw(truth, 10)) == truth).mean() > 0.9
