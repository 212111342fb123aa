"""Reference numerics of BitNet b1.58 (W1.58A8): the oracle of every kernel.

Source: Ma et al. 2024, "The Era of 1-bit LLMs" (arXiv 2402.17764), equations 1 to 3, with the
rounding and dtype behaviour of `transformers/integrations/bitnet.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-5
"""Lower clamp of γ and of max|x|, as in transformers."""
Q_MIN, Q_MAX = -128, 127
MAX_EXACT_INPUTS = 2**24 // 128
"""Widest layer whose integer products float32 sums without rounding."""


def absmean(weight: Tensor) -> Tensor:
    """γ = mean|W| over the whole matrix, at least 1e-5: float32, shape `[]`."""
    return weight.float().abs().mean().clamp(min=EPSILON)


def ternarize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """W_q = RoundClip(W/γ, -1, 1): int8 of `weight`'s shape, and γ (float32, shape `[]`).

    Halves round to even. W/γ is computed as W · (1/γ) in float32, like transformers'
    `WeightQuant`, so that both agree on every weight.
    """
    gamma = absmean(weight)
    return (weight.float() * (1.0 / gamma)).round().clamp(-1, 1).to(torch.int8), gamma


def quantize_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Per-token int8: x_q = RoundClip(x · s, -128, 127) with s = 127 / max|x|.

    `x` is `[..., in]`; returns int8 `[..., in]` and s `[..., 1]` in x's dtype. The arithmetic is
    done in x's dtype, like transformers' `BitLinear`; pass float32 for what its `AutoBitLinear`
    and our own training and kernels do.
    """
    scale = Q_MAX / x.abs().amax(dim=-1, keepdim=True).clamp(min=EPSILON)
    return (x * scale).round().clamp(Q_MIN, Q_MAX).to(torch.int8), scale


def ternary_linear(x: Tensor, weight: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = (W_q · x_q) · γ / s (+ bias): `[..., out]` in x's dtype.

    `x` is `[..., in]` of a float dtype, `weight` is int8 `[out, in]` in {-1, 0, 1}, `gamma` is
    float32, `[]` or `[out]` (one scale for each row, for merged layers). Scales are float32 and
    the integer product is exact for layers of up to 131,072 inputs.
    """
    x_q, scale = quantize_activations(x.float())
    product = x_q.float() @ weight.float().t()
    y = product * (gamma / scale)
    if bias is not None:
        y = y + bias.float()
    return y.to(x.dtype)


def fake_quantize_weight(weight: Tensor, strength: float | Tensor = 1.0) -> Tensor:
    """γ · W_q in the forward pass, the identity in the backward pass (straight-through).

    `strength` is the warm-up λ: 0 leaves the weight as it is, 1 quantizes it fully. Computed in
    float32, returned in the weight's dtype.
    """
    with torch.no_grad():
        full = weight.float()
        inverse = 1.0 / absmean(full)
        quantized = (full * inverse).round().clamp(-1, 1) / inverse
    return _straight_through(weight, full, quantized, strength)


def fake_quantize_activations(x: Tensor, strength: float | Tensor = 1.0) -> Tensor:
    """x_q / s in the forward pass, the identity in the backward pass; otherwise as above."""
    with torch.no_grad():
        full = x.float()
        scale = Q_MAX / full.abs().amax(dim=-1, keepdim=True).clamp(min=EPSILON)
        quantized = (full * scale).round().clamp(Q_MIN, Q_MAX) / scale
    return _straight_through(x, full, quantized, strength)


def _straight_through(
    x: Tensor, full: Tensor, quantized: Tensor, strength: float | Tensor
) -> Tensor:
    """The value `full + (quantized - full) · strength` (exact at 0 and 1), the gradient of x."""
    with torch.no_grad():
        value = torch.lerp(full, quantized, strength).to(x.dtype)
    result: Tensor = _PassThrough.apply(x, value)  # type: ignore[no-untyped-call]
    return result


class _PassThrough(torch.autograd.Function):
    """Replaces x by `value` in the forward pass only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
