"""The head: rows, bytes and the file the meta worker takes."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load

from router.head import QUESTIONS, UNUSED, Background, HeadRow, build_head, chances, later_chances


def row(seed: int, hidden: int = 6) -> HeadRow:
    weights = np.random.default_rng(seed).normal(size=(3, hidden)).astype(np.float32)
    bias, margin = np.array([[0.5, -1.5, UNUSED], [1.0, 2.0, 0.0]], np.float32)
    return HeadRow(weights, bias, margin)


def test_a_row_survives_its_bytes() -> None:
    before = row(0)
    after = HeadRow.from_bytes(before.to_bytes())
    assert np.array_equal(before.weights, after.weights)
    assert np.array_equal(before.bias, after.bias)
    assert np.array_equal(before.margin, after.margin)


def test_each_question_has_its_own_weights_and_bias() -> None:
    hidden = np.zeros((2, 6), np.float32)
    assert row(0).scores("start", hidden).tolist() == [0.5, 0.5]
    assert row(0).scores("pending", hidden).tolist() == [-1.5, -1.5]
    assert np.isneginf(row(0).scores("turn", hidden)).all()
    hidden[:, 2] = 1
    assert row(0).scores("start", hidden)[0] == pytest.approx(0.5 + row(0).weights[0, 2])


def test_unused_slots_can_never_win() -> None:
    tensors = load(build_head({2: row(1)}, slots=4, hidden_size=6).safetensors)
    assert tensors["rows"].shape == (3, 4, 6)
    assert np.isneginf(tensors["bias"][:, [0, 1, 3]]).all()
    assert tensors["bias"][:2, 2].tolist() == [0.5, -1.5]


def test_the_version_follows_the_content() -> None:
    one = build_head({0: row(1)}, 4, 6)
    assert one.version == build_head({0: row(1)}, 4, 6).version
    assert one.version != build_head({1: row(1)}, 4, 6).version


@pytest.mark.parametrize(("slot", "hidden"), [(4, 6), (-1, 6), (0, 7)])
def test_a_row_that_does_not_fit_is_refused(slot: int, hidden: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        build_head({slot: row(1, hidden)}, 4, 6)


def test_a_chosen_threshold_moves_what_is_asked_at_the_first_token() -> None:
    learned, chosen = row(0), row(0).asking(0.9)
    assert learned.asking(None) is learned
    for question, unmoved in (("start", False), ("pending", False), ("turn", True)):
        index = QUESTIONS.index(question)
        for r in (learned, chosen):
            odds = r.bias[index] + r.margin[index]
            assert odds == learned.bias[index] + learned.margin[index], "log-odds changed"
        assert (chosen.margin[index] == learned.margin[index]) == unmoved
    zero = np.zeros((1, 6), np.float32)
    at = np.log(0.9 / 0.1)
    assert chosen.scores("start", zero)[0] == pytest.approx(0.5 + 1.0 - at)


def test_at_the_start_experts_share_what_no_expert_leaves() -> None:
    scores = {"a": (row(0), -1.0), "b": (row(1), 0.0)}  # log-odds 0 and 1 with the margin of 1
    found = chances(scores)
    assert found["a"] == pytest.approx(1 / (2 + np.e))
    assert found["b"] == pytest.approx(np.e / (2 + np.e))


def test_later_each_expert_stands_alone() -> None:
    scores = {"a": (row(0), -2.0, 9.0), "b": (row(1), 5e3, 5e3)}  # with margins of 2 and 0
    assert later_chances(scores) == {"a": pytest.approx(0.5), "b": pytest.approx(1.0)}


def test_a_hand_over_is_as_likely_as_the_less_likely_of_its_two_questions() -> None:
    """Each with its own margin: 0.1 with a margin of 0 is less than 5 with one of 3."""
    sure = replace(row(0), margin=np.array([0.0, 0.0, 3.0], np.float32))
    assert later_chances({"a": (sure, 0.1, 5.0)}) == {"a": pytest.approx(0.525, abs=1e-3)}
    assert later_chances({"a": (sure, 9.0, -3.0)}) == {"a": pytest.approx(0.5)}


def test_an_expert_that_is_not_allowed_has_no_chance() -> None:
    assert chances({"a": (row(0), float("-inf"))}) == {"a": 0.0}


@pytest.mark.parametrize("kinds", [0, 3])
def test_a_background_survives_its_bytes(kinds: int) -> None:
    rng = np.random.default_rng(3)
    weights, bias = rng.normal(size=(kinds, 6)), rng.normal(size=kinds)
    before = Background(weights.astype(np.float32), bias.astype(np.float32))
    after = Background.from_bytes(before.to_bytes(), 6)
    assert np.array_equal(before.weights, after.weights)
    assert np.array_equal(before.bias, after.bias)


def test_a_background_that_was_stored_is_sent_as_it_was() -> None:
    weights, bias = np.arange(18, dtype=np.float32).reshape(3, 6), np.ones(3, np.float32)
    stored = Background.from_bytes(Background(weights, bias).to_bytes(), 6)
    sent = build_head({}, 2, 6, stored).tensors()
    assert np.array_equal(sent["background"], weights)
    assert np.array_equal(sent["background_bias"], bias)
