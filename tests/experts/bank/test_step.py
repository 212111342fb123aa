"""Slots of a step's rows."""

from __future__ import annotations

import torch

from experts.vllm_plugin.bank.step import Step, Steps, building, under_construction


def step(slots: list[int], rows: int) -> Step:
    made = Step()
    made.begin(torch.tensor(slots), rows)
    return made


def test_rows_without_an_expert_go_to_the_first_slot() -> None:
    made = step([2, -1, 1, 9], 3)
    assert made.slots.tolist() == [2, 0, 1]
    assert step([2], 3).slots.tolist() == [2, 0, 0]


def test_each_row_has_its_own_part() -> None:
    stack = torch.arange(6.0).reshape(3, 2)
    mixed = step([2, 0, 2], 3)
    assert mixed.only is None
    assert mixed.select(stack).tolist() == [[4, 5], [0, 1], [4, 5]]
    alone = step([1, 1], 2)
    assert alone.only == 1
    assert alone.select(stack).tolist() == [2, 3]


def test_building_ends() -> None:
    steps = Steps()
    with building(steps):
        assert under_construction() is steps
    assert under_construction() is None
