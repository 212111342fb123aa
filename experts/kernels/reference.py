"""The portable implementation in torch: the fallback where no kernel is, and every kernel's
oracle."""

from __future__ import annotations

import torch
from torch import Tensor

from experts.kernels.groups import Groups
from experts.kernels.slots import Slots
from experts.packing import unpack_rows
from experts.ternary import ternary_linear as unpacked_linear


def ternary_linear(x: Tensor, packed: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """`experts.kernels.ternary_linear`, unpacking the whole matrix at every call."""
    return unpacked_linear(x, unpack_rows(packed, gamma.numel()), gamma, bias)


def grouped_ternary_linear(x: Tensor, slots: Slots, groups: Groups) -> Tensor:
    """`experts.kernels.grouped_ternary_linear`, one group after the other."""
    slots.check(x, groups)
    y = torch.zeros((x.shape[0], slots.outputs), dtype=x.dtype, device=x.device)
    for slot, tokens in groups.each():
        own = slots[slot]
        if own is not None:
            y[tokens] = ternary_linear(x[tokens], own.packed, own.gamma, own.bias)
    return y
