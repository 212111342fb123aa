"""A mixed batch through a bank of matrices equals each expert's own layer, token by token."""

from __future__ import annotations

import pytest
import torch

from experts.kernels import Groups, grouped_ternary_linear, reference
from experts.kernels.native import Kernel, load_kernels
from experts.packing import pack_rows
from experts.ternary import ternary_linear

SLOTS, OUT, IN = 5, 70, 96


def bank(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    values = torch.randint(-1, 2, (SLOTS, OUT, IN), dtype=torch.int8)
    return values, torch.rand(SLOTS, OUT) + 0.1, torch.randn(SLOTS, OUT).to(dtype)


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
    values, gamma, bias = bank(dtype)
    packed = torch.stack([pack_rows(v) for v in values])
    slots = torch.randint(0, SLOTS, (tokens,))
    x = torch.randn(tokens, IN).to(dtype)
    y = kernel(x, packed, gamma, bias, Groups.of(slots))
    other = reference.grouped_ternary_linear(x, packed, gamma, bias, Groups.of(slots))
    assert torch.equal(y, other)
    for t, slot in enumerate(slots.tolist()):
        expected = ternary_linear(x[t : t + 1], values[slot], gamma[slot], bias[slot])
        assert torch.equal(y[t : t + 1], expected)


def test_no_tokens() -> None:
    values, gamma, _ = bank(torch.float32)
    packed = torch.stack([pack_rows(v) for v in values])
    groups = Groups.of(torch.empty(0, dtype=torch.int64))
    y = grouped_ternary_linear(torch.empty(0, IN), packed, gamma, None, groups)
    assert y.shape == (0, OUT)


@pytest.mark.parametrize("slots", [[0, SLOTS], [0], [0, 0, 0]])
def test_groups_that_do_not_fit_are_refused(slots: list[int]) -> None:
    values, gamma, _ = bank(torch.float32)
    packed = torch.stack([pack_rows(v) for v in values])
    with pytest.raises(ValueError, match="do not fit"):
        grouped_ternary_linear(
            torch.zeros(2, IN), packed, gamma, None, Groups.of(torch.tensor(slots))
        )
