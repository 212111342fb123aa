"""Slots of a step's rows."""

from __future__ import annotations

import torch

from experts.vllm_plugin.bank.step import Step, Steps, building, under_construction


def step(slots: list[int], rows: int) -> Step:
    """A step in a bank that has put slot n into place 9 - n."""
    made = Step()
    made.begin(torch.tensor(slots), rows, lambda wanted: [9 - slot for slot in wanted])
    return made


def test_rows_without_an_expert_go_to_the_first_slot() -> None:
    made = step([2, -1, 1, 9], 3)
    assert made.places.tolist() == [7, 9, 8]
    assert step([2], 3).places.tolist() == [7, 9, 9]


def test_each_row_has_its_own_part() -> None:
    stack = torch.arange(20.0).reshape(10, 2)
    mixed = step([2, 0, 2], 3)
    assert mixed.only is None
    assert mixed.select(stack).tolist() == [[14, 15], [18, 19], [14, 15]]
    alone = step([1, 1], 2)
    assert alone.only == 8
    assert alone.select(stack).tolist() == [16, 17]


def test_each_experts_rows_are_computed_together_and_put_back() -> None:
    x = torch.arange(3.0)[:, None]
    y = step([2, 0, 2], 3).split(x, 2, lambda place, own: own.repeat(1, 2) + 100 * place)
    assert y.tolist() == [[700, 700], [901, 901], [702, 702]]
    alone = step([2, 2], 2).split(x[:2], 1, lambda place, own: own + place)
    assert alone.tolist() == [[7], [8]]


def test_building_ends() -> None:
    steps = Steps()
    with building(steps):
        assert under_construction() is steps
    assert under_construction() is None
