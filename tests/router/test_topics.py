"""What a name says."""

import numpy as np

from router.topics import common_questions, topic_questions, topic_shifts


def test_a_name_is_put_as_words() -> None:
    questions = topic_questions("electrical_engineering")
    assert all("electrical engineering" in question for question in questions)
    assert {len(subject) for subject in common_questions()} == {len(questions)}


def test_what_all_subjects_share_is_taken_away() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(1, 6, 8)) * 10
    subject = rng.normal(size=(3, 1, 8))
    named = (shared + subject).astype(np.float32)
    common = (shared + rng.normal(size=(24, 1, 8))).astype(np.float32)
    shifts = topic_shifts(named, common)
    assert np.abs(shifts - shifts[:, :1]).max() < 1e-4, "the questions' own parts are gone"
    assert np.abs(shifts[:, 0] - subject[:, 0]).max() < 1.5
