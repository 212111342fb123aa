"""A mixed batch through a bank of matrices equals each expert's own layer, token by token."""

from __future__ import annotations

import pytest
import torch

from experts.kernels import Groups, Slots, Weights, grouped_ternary_linear, reference
from experts.kernels.native import Kernel, load_kernels
from experts.packing import pack_rows
from experts.ternary import ternary_linear

SLOTS, OUT, IN = 5, 70, 96


def bank(dtype: torch.dtype | None = None) -> tuple[torch.Tensor, Slots]:
    """Random matrices, int8 `[SLOTS, OUT, IN]`, and their slots; with biases if of a dtype."""
    values = torch.randint(-1, 2, (SLOTS, OUT, IN), dtype=torch.int8)
    slots = Slots(SLOTS, OUT, IN)
    for slot in range(SLOTS):
        bias = None if dtype is None else torch.randn(OUT).to(dtype)
        slots.put(slot, Weights(pack_rows(values[slot]), torch.rand(OUT) + 0.1, bias))
    return values, slots


def test_groups() -> None:
    groups = Groups.of(torch.tensor([2, 0, 2, 4, 0, 2]))
    assert groups.order.tolist() == [1, 4, 0, 2, 5, 3]
    assert groups.begin.tolist() == [0, 2, 5, 6]
    assert groups.slots.tolist() == [0, 2, 4]


@pytest.mark.parametrize("kernel", load_kernels(), ids=[k.name for k in load_kernels()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 7, 200])
def test_each_token_has_its_own_weights(kernel: Kernel, dtype: torch.dtype, tokens: int) -> None:
    torch.manual_seed(tokens)
    values, slots = bank(dtype)
    chosen = torch.randint(0, SLOTS, (tokens,))
    x = torch.randn(tokens, IN).to(dtype)
    y = kernel.grouped(x, slots, Groups.of(chosen))
    assert torch.equal(y, reference.grouped_ternary_linear(x, slots, Groups.of(chosen)))
    for t, slot in enumerate(chosen.tolist()):
        own = slots[slot]
        assert own is not None
        expected = ternary_linear(x[t : t + 1], values[slot], own.gamma, own.bias)
        assert torch.equal(y[t : t + 1], expected)


@pytest.mark.parametrize("kernel", load_kernels(), ids=[k.name for k in load_kernels()])
def test_an_empty_slot_gives_zeros(kernel: Kernel) -> None:
    _, slots = bank()
    slots.clear(1)
    groups = Groups.of(torch.tensor([1, 0, 1]))
    x = torch.randn(3, IN)
    y = kernel.grouped(x, slots, groups)
    assert torch.equal(y, reference.grouped_ternary_linear(x, slots, groups))
    assert not y[[0, 2]].any()
    assert y[1].any()


def test_no_tokens() -> None:
    groups = Groups.of(torch.empty(0, dtype=torch.int64))
    y = grouped_ternary_linear(torch.empty(0, IN), bank()[1], groups)
    assert y.shape == (0, OUT)


@pytest.mark.parametrize("chosen", [[0, SLOTS], [0], [0, 0, 0]])
def test_groups_that_do_not_fit_are_refused(chosen: list[int]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        grouped_ternary_linear(torch.zeros(2, IN), bank()[1], Groups.of(torch.tensor(chosen)))


def test_weights_of_another_size_are_refused() -> None:
    _, slots = bank()
    with pytest.raises(ValueError, match=f"do not fit a layer of {IN} x {OUT}"):
        slots.put(0, Weights(torch.zeros(3, IN, dtype=torch.uint8), torch.ones(OUT)))


def test_a_bias_of_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        grouped_ternary_linear(
            torch.zeros(1, IN), bank(torch.bfloat16)[1], Groups.of(torch.tensor([0]))
        )
