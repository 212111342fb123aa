"""Ternary linear layers on NVIDIA GPUs: `humming-kernels`, or plain torch where it cannot serve.

Follows `HummingLinearMethod.process_weights_after_loading` and `apply` of
`vllm/model_executor/layers/quantization/humming.py` (vLLM 0.32). Written without a GPU at hand:
only what runs on CPU tensors is tested everywhere, the rest where `torch.cuda.is_available()`.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from vllm.logger import init_logger

from experts.checkpoint import CheckpointError
from experts.kernels import Weights
from experts.kernels.humming import Activations, to_humming
from experts.packing import unpack_rows
from experts.ternary import quantize_activations
from experts.vllm_plugin.across_ranks import with_peak
from experts.vllm_plugin.linear import BitNetLinearMethod

OPTION = "TRIVIUM_TERNARY_ACTIVATIONS"
"""Environment variable: `int8` (W1.58A8, the exact definition; the default) or `bf16`
(W1.58A16: activations stay as they are)."""

FAILURES = (
    *(ImportError, RuntimeError, ValueError, AssertionError, AttributeError),
    *(KeyError, OSError),  # a generation of GPUs that it does not know; no compiler
)
"""What humming raises where it cannot serve a matrix or a GPU."""

logger = init_logger(__name__)


@cache
def activations() -> Activations:
    """The choice of `OPTION`. Raises CheckpointError for any other word."""
    choice = os.environ.get(OPTION, "int8")
    if choice == "int8":
        return "int8"
    if choice == "bf16":
        return "bf16"
    raise CheckpointError(f"{OPTION} is {choice!r}; it can be int8 or bf16")


class CudaBitNetLinearMethod(BitNetLinearMethod):
    """Loads like the CPU's method, then hands each layer to a library of the GPU."""

    def process_weights_after_loading(self, layer: Any) -> None:
        """Convert the packed weights once, on the GPU. Raises as the CPU's method does."""
        super().process_weights_after_loading(layer)
        try:
            if self.config.norm_eps is not None:
                raise ValueError("use_rms_norm gives each layer a norm of its own")
            self._to_humming(layer)
        except FAILURES as error:
            logger.warning_once(
                "Ternary layers are computed by plain torch from bf16 copies of their weights: 8"
                " times the memory, and no faster than a bf16 model. humming-kernels cannot serve"
                " them here: %s",
                str(error) or type(error).__name__,
            )
            self._to_torch(layer)

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`[..., in]` to `[..., out]` in x's dtype."""
        if not hasattr(layer, "humming_config"):
            return super().apply(layer, x, bias)
        from vllm.model_executor.layers.quantization.utils.humming import apply_humming_linear

        if layer.split_input:
            x = with_peak(x)
        # `utils/humming/linear.py`: humming_forward with the layer's `bias` or `zero_bias`
        y: Tensor = apply_humming_linear(
            layer,
            x,
            skip_bias_add=bias is None,
            layer_config=layer.humming_config,
            compute_config=layer.humming_compute,  # made beforehand: Dynamo traces no JSON
            locks=layer.humming_locks,
        )
        return y

    def product(self, x: Tensor, weight: Tensor, gamma: Tensor, bias: Tensor | None) -> Tensor:
        """The plain path: one matrix, unpacked, `[out, in]` in x's dtype. int8 activations and
        ternary weights are whole numbers that bf16 holds exactly; the sums are rounded to it."""
        if activations() == "bf16":
            y = nn.functional.linear(x, weight).float() * gamma
        else:
            x_q, scale = quantize_activations(x.float())
            y = nn.functional.linear(x_q.to(x.dtype), weight).float() * (gamma / scale)
        if bias is not None:
            y = y + bias.float()
        return y.to(x.dtype)

    def _to_humming(self, layer: Any) -> None:
        from vllm.model_executor.layers.quantization.utils.humming import (
            get_humming_linear_compute_config,
        )

        # The name `humming_forward` has vLLM patch humming, which must come before the layer is
        # made: what humming asks about the GPU is then kept, and need not be traced.
        from vllm.utils.humming import create_humming_locks, humming_forward  # noqa: F401

        bias = layer.bias.data if layer.has_bias else None
        weights = Weights(layer.weight.data, layer.gamma.data, bias)
        schema, config, tensors = to_humming(weights, layer.params_dtype, activations())
        locks = create_humming_locks(layer.weight.device)
        del layer.weights
        for name in ("weight", "gamma", *(["bias"] if layer.has_bias else [])):
            delattr(layer, name)
        for name, tensor in tensors.items():
            layer.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        if layer.has_bias:
            layer.register_buffer("zero_bias", torch.zeros_like(layer.bias))
        layer.weight_schema, layer.humming_config, layer.humming_locks = schema, config, locks
        layer.humming_compute = get_humming_linear_compute_config()

    def _to_torch(self, layer: Any) -> None:
        layer.weights = [
            unpack_rows(weight, matrix.rows).to(layer.params_dtype)
            for weight, matrix in zip(layer.weights, layer.matrices, strict=True)
        ]
        del layer.weight
