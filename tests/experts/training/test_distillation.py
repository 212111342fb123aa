"""The distillation terms, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from experts.training.distillation import (
    logit_divergence,
    matching_layers,
    relation_divergence,
    state_distance,
)


def test_logits() -> None:
    """Teacher 3:1 and student 1:1 at τ = 2; KL = ¾ ln(¾ / ½) + ¼ ln(¼ / ½)."""
    teacher = torch.tensor([[2 * math.log(3), 0.0], [5.0, 5.0]])
    student = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    by_hand = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    value = logit_divergence(student, teacher, temperature=2.0)
    assert value.item() == pytest.approx(4 * by_hand)
    assert logit_divergence(teacher, teacher, 2.0).item() == pytest.approx(0.0, abs=1e-6)


def test_a_further_padded_vocabulary_does_not_count() -> None:
    teacher = torch.tensor([[2.0, 1.0, 99.0]])
    student = torch.tensor([[2.0, 1.0]])
    assert logit_divergence(student, teacher, 1.0).item() == pytest.approx(0.0, abs=1e-6)


def test_relations() -> None:
    """One head of width 1, tokens 1 and 0 and one of padding, √d = 1. The student's projections
    are 0, so its relations are ½ : ½. The teacher's row of token 1 is e : 1, that of token 0 is
    1 : 1."""
    mask = torch.tensor([[True, True, False]])
    teacher = torch.tensor([[[1.0], [0.0], [7.0]]])
    student = torch.zeros(1, 3, 1)
    p = math.e / (math.e + 1)
    by_hand = (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)) + 0.0) / 2
    same = torch.ones(1, 3, 1)
    value = relation_divergence([student, same, same], [teacher, same, same], 1, mask)
    assert value.item() == pytest.approx(by_hand / 3)


def test_relations_compare_models_of_other_widths() -> None:
    mask = torch.ones(2, 5, dtype=torch.bool)
    torch.manual_seed(0)
    wide = [torch.randn(2, 5, 16) for _ in range(3)]
    narrow = [torch.randn(2, 5, 8) for _ in range(3)]
    assert relation_divergence(narrow, wide, 2, mask) > 0.01
    assert relation_divergence(wide, wide, 2, mask).item() == pytest.approx(0.0, abs=1e-6)


def test_hidden_states() -> None:
    mask = torch.tensor([[True, False]])
    teacher = torch.tensor([[[3.0, 4.0], [9.0, 9.0]]])
    student = torch.tensor([[[3.0, 3.0], [0.0, 0.0]]])
    value = state_distance([student, teacher], [teacher, teacher], mask)
    assert value.item() == pytest.approx((1 / 25 + 0) / 2)


def test_layers_are_matched_by_depth() -> None:
    assert matching_layers(3, 3) == [1, 2, 3]
    assert matching_layers(2, 6) == [3, 6]
    assert matching_layers(6, 2) == [1, 1, 1, 2, 2, 2]
