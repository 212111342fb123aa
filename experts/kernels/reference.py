"""The portable implementation in torch: the fallback where no kernel is, and every kernel's
oracle."""

from __future__ import annotations

from torch import Tensor

from experts.packing import unpack_rows
from experts.ternary import ternary_linear as unpacked_linear


def ternary_linear(x: Tensor, packed: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """`experts.kernels.ternary_linear`, unpacking the whole matrix at every call."""
    return unpacked_linear(x, unpack_rows(packed, gamma.numel()), gamma, bias)
