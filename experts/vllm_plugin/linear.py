"""Ternary linear layers in vLLM: packed weights in, W1.58A8 products out.

Stands on `layers/linear.py` of vLLM 0.32: `LinearMethodBase`, and the arguments that its layers
give to `create_weights` and to weight loaders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.linear import LinearMethodBase
from vllm.model_executor.utils import set_weight_attrs

from experts.kernels import ternary_linear
from experts.vllm_plugin.across_ranks import PEAK_COLUMNS, normalize, with_peak
from experts.vllm_plugin.loading import Loader, Matrix
from experts.vllm_plugin.rows import zeros

if TYPE_CHECKING:
    from experts.vllm_plugin.quantization import BitNetConfig


class BitNetLinearMethod(LinearMethodBase):  # type: ignore[misc]  # vLLM is untyped to mypy
    """Packed ternary weights, one scale for each part of a merged layer, int8 activations.

    A merged layer is one matrix and one product; with a norm in front of each part, whose inputs
    then differ, each part is a matrix of its own.
    """

    def __init__(self, config: BitNetConfig) -> None:
        self.config = config

    def create_weights(
        self,
        layer: Any,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra_weight_attrs: Any,
    ) -> None:
        """`weight` uint8 `[ceil(out/4), in]` (one matrix below the other where there are more),
        `weight_scale` float32 `[parts]`, and `rms_norm.weight` `[parts, in]`.

        Where the input is split over ranks, `weight` has columns of zeros more, for `with_peak`.
        """
        sizes, inputs = output_partition_sizes, input_size_per_partition
        layer.whole_inputs, layer.split_input = input_size, inputs < input_size
        normed = self.config.norm_eps is not None
        layer.matrices = _matrices([[size] for size in sizes] if normed else [sizes])
        loader = Loader(self.config, layer, sizes, inputs)
        columns = inputs + PEAK_COLUMNS if layer.split_input else inputs
        weight = zeros(sum(matrix.height for matrix in layer.matrices), columns)
        _add(layer, "weight", weight, loader.load_weight)
        _add(layer, "weight_scale", torch.zeros(len(sizes)).float(), loader.load_scale)
        if normed:
            layer.rms_norm = nn.Module()
            norms = torch.zeros(len(sizes), inputs, dtype=params_dtype)
            _add(layer.rms_norm, "weight", norms, loader.load_norm)
        layer.loader = loader

    def process_weights_after_loading(self, layer: Any) -> None:
        """Check that all is there, and spread the scales over their rows: `gamma` float32
        `[out]`, in the place of `weight_scale`; `weights` are the matrices within `weight`.
        Raises CheckpointError."""
        layer.loader.check_all_loaded()
        sizes = torch.tensor(layer.loader.sizes, device=layer.weight_scale.device)
        gamma = layer.weight_scale.data.repeat_interleave(sizes)
        layer.gamma = nn.Parameter(gamma, requires_grad=False)
        layer.weights = [
            layer.weight.data[matrix.top : matrix.top + matrix.height] for matrix in layer.matrices
        ]
        del layer.weight_scale, layer.loader
        bias = getattr(layer, "bias", None)
        if self.config.scales_bias and bias is not None:
            bias.data.mul_(gamma)

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`[..., in]` to `[..., out]` in x's dtype; the same numbers as
        `experts.ternary.ternary_linear`."""
        if self.config.norm_eps is not None:
            return self._apply_parts(layer, x, bias, self.config.norm_eps)
        if layer.split_input:
            x = with_peak(x)
        return self.product(x, layer.weights[0], layer.gamma, bias)

    def product(self, x: Tensor, weight: Tensor, gamma: Tensor, bias: Tensor | None) -> Tensor:
        """One matrix of a layer times its input."""
        return ternary_linear(x, weight, gamma, bias)

    def _apply_parts(self, layer: Any, x: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        """Each part's norm, then its product (`BitLinear.rms_norm` in
        `transformers/integrations/bitnet.py`)."""
        normal = normalize(x, eps, layer.whole_inputs)
        outputs = []
        start = 0
        for number, matrix in enumerate(layer.matrices):
            part = normal * layer.rms_norm.weight[number]
            if layer.split_input:
                part = with_peak(part)
            rows = slice(start, start + matrix.rows)
            own_bias = None if bias is None else bias[rows]
            outputs.append(self.product(part, layer.weights[number], layer.gamma[rows], own_bias))
            start += matrix.rows
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


def _matrices(groups: list[list[int]]) -> list[Matrix]:
    """The packed matrices of a layer, each of which holds a group of parts of the given rows."""
    matrices: list[Matrix] = []
    for sizes in groups:
        top = matrices[-1].top + matrices[-1].height if matrices else 0
        matrices.append(Matrix(top, tuple(sizes)))
    return matrices


def _add(module: nn.Module, name: str, tensor: Tensor, loader: Any) -> None:
    param = nn.Parameter(tensor, requires_grad=False)
    set_weight_attrs(param, {"weight_loader": loader})
    module.register_parameter(name, param)
