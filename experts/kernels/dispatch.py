"""Which implementation computes a ternary product."""

from __future__ import annotations

from torch import Tensor

from experts.kernels import reference


def ternary_linear(x: Tensor, packed: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = (W_q · x_q) · γ / s (+ bias), W1.58A8: `[..., out]` in x's dtype.

    `x` is `[..., in]`, float32 or bfloat16; `packed` is contiguous uint8 `[ceil(out / 4), in]`
    (`experts.packing.pack_rows`: the Hugging Face layout); `gamma` is float32 `[out]`, one scale
    for each row; `bias` is `[out]` in x's dtype or None. The integer product is exact, and the
    result equals `experts.ternary.ternary_linear` bit for bit.
    """
    return reference.ternary_linear(x, packed, gamma, bias)
