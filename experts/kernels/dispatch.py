"""Which implementation computes a ternary product; the operator `trivium::ternary_linear`."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch
from torch import Tensor

from experts.kernels import reference
from experts.kernels.groups import Groups
from experts.kernels.native import DTYPES, Kernel, load_kernels
from experts.kernels.slots import Slots

CHOICE = "TRIVIUM_TERNARY_KERNEL"
"""Environment variable: the name of a path (see `active`), where the fastest is not wanted."""
TORCH = "torch"

logger = logging.getLogger(__name__)


@cache
def kernel() -> Kernel | None:
    """The C path in use, or None if torch computes. Raises ValueError for an unknown choice."""
    choice = os.environ.get(CHOICE)
    if choice == TORCH:
        return None
    kernels = load_kernels()
    if not kernels:
        logger.warning(
            "Trivium's ternary kernel was not compiled, so torch computes ternary layers:"
            " many times slower, unpacking each matrix at every step. Install a C compiler"
            " (gcc or clang) and install Trivium again."
        )
        return None
    named = {kernel.name: kernel for kernel in kernels}
    if choice is not None and choice not in named:
        raise ValueError(f"{CHOICE}={choice}: this machine has {', '.join([*named, TORCH])}")
    return kernels[0] if choice is None else named[choice]


def active() -> str:
    """Name of what computes on this machine's CPU: avx512vnni, avx2, neon, portable or torch."""
    chosen = kernel()
    return TORCH if chosen is None else chosen.name


def ternary_linear(x: Tensor, packed: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = (W_q · x_q) · γ / s (+ bias), W1.58A8: `[..., out]` in x's dtype.

    `x` is `[..., in]`, a float dtype; `packed` is contiguous uint8 `[ceil(out / 4), in]`
    (`experts.packing.pack_rows`: the Hugging Face layout); `gamma` is float32 `[out]`, one scale
    for each row; `bias` is `[out]` in x's dtype or None. The integer product is exact, and the
    result equals `experts.ternary.ternary_linear` bit for bit. Raises ValueError for tensors
    that do not fit together.
    """
    if torch.compiler.is_compiling():
        y: Tensor = operator(x, packed, gamma, bias)
        return y
    return _compute(x, packed, gamma, bias)


def _compute(x: Tensor, packed: Tensor, gamma: Tensor, bias: Tensor | None) -> Tensor:
    chosen = kernel() if x.is_cpu else None
    if chosen is None:
        return reference.ternary_linear(x, packed, gamma, bias)
    if x.dtype in DTYPES:
        return chosen(x, packed, gamma, bias)
    wide = chosen(x.float(), packed, gamma, None if bias is None else bias.float())
    return wide.to(x.dtype)


def grouped_ternary_linear(x: Tensor, slots: Slots, groups: Groups) -> Tensor:
    """`ternary_linear` of a mixed batch, each token with the weights of its own slot.

    `x` is `[tokens, in]`. Returns `[tokens, out]` in x's dtype; zeros for an empty slot's tokens.
    Raises ValueError for tensors that do not fit together.
    """
    chosen = kernel() if x.is_cpu and x.dtype in DTYPES else None
    if chosen is None:
        return reference.grouped_ternary_linear(x, slots, groups)
    return chosen.grouped(x, slots, groups)


@torch.library.custom_op("trivium::ternary_linear", mutates_args=())
def operator(x: Tensor, packed: Tensor, gamma: Tensor, bias: Tensor | None) -> Tensor:
    """`ternary_linear` as torch's compiler sees it: one opaque operator."""
    return _compute(x, packed, gamma, bias)


@operator.register_fake
def _shape(x: Tensor, packed: Tensor, gamma: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], gamma.shape[0]))
