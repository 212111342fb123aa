"""Serving Hugging Face `bitnet` checkpoints in vLLM with exact W1.58A8 numerics.

All that touches vLLM's quantization interfaces (`quantization/base_config.py`, `linear.py` of
vLLM 0.32) stands here.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.linear import (
    LinearBase,
    LinearMethodBase,
    UnquantizedLinearMethod,
)
from vllm.model_executor.layers.quantization.base_config import (
    QuantizationConfig,
    QuantizeMethodBase,
)

from experts.packing import unpack
from experts.ternary import quantize_activations

METHOD = "bitnet"
LinearClass = Literal["bitlinear", "autobitlinear"]
QKV = ("q", "k", "v")


class BitNetConfig(QuantizationConfig):  # type: ignore[misc]  # vLLM is untyped to mypy
    """The checkpoint's `quantization_config`.

    `linear_class` says what `weight_scale` means: `bitlinear` divides by it, `autobitlinear`
    multiplies by it.
    """

    def __init__(self, linear_class: LinearClass, kept: list[str]) -> None:
        super().__init__()
        self.linear_class = linear_class
        self.kept = kept

    def get_name(self) -> str:
        return METHOD

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def get_min_capability(cls) -> int:
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BitNetConfig:
        """Raises ValueError for variants of the format that hold no packed ternary weights."""
        if config.get("quantization_mode", "offline") != "offline":
            raise ValueError(
                'a bitnet checkpoint of quantization_mode "online" holds unquantized weights;'
                " pack it first (quantization_mode offline)"
            )
        if config.get("use_rms_norm"):
            raise ValueError("bitnet checkpoints with use_rms_norm are not supported")
        linear_class = config.get("linear_class", "bitlinear")
        if linear_class not in ("bitlinear", "autobitlinear"):
            raise ValueError(f"unknown linear_class {linear_class!r} in a bitnet checkpoint")
        return cls(linear_class, list(config.get("modules_to_not_convert") or []))

    def get_quant_method(self, layer: Any, prefix: str) -> QuantizeMethodBase | None:
        """Ternary for linear layers, except those that the checkpoint keeps; None (vLLM's own,
        unquantized) for embeddings and the language-model head."""
        if not isinstance(layer, LinearBase):
            return None
        if any(name == prefix or name in prefix.split(".") for name in self.kept):
            return UnquantizedLinearMethod()
        return BitNetLinearMethod(self)


class BitNetLinearMethod(LinearMethodBase):  # type: ignore[misc]
    """int8 ternary weights, one scale for each part of a merged layer, int8 activations."""

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
        """`weight` int8 `[out, in]` and `weight_scale` float32 `[parts]` (γ after loading)."""
        parts = _Parts(layer, output_partition_sizes, input_size_per_partition)
        weight = torch.zeros(sum(output_partition_sizes), input_size_per_partition)
        layer.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)
        layer.weight.weight_loader = parts.load_weight
        layer.weight_scale = nn.Parameter(
            torch.ones(len(output_partition_sizes), dtype=torch.float32), requires_grad=False
        )
        layer.weight_scale.weight_loader = parts.load_scale
        layer.part_sizes = list(output_partition_sizes)

    def process_weights_after_loading(self, layer: Any) -> None:
        """Spread the scales over their rows: `gamma` float32 `[out]`."""
        scale = layer.weight_scale.data
        gamma = scale if self.config.linear_class == "autobitlinear" else 1.0 / scale
        sizes = torch.tensor(layer.part_sizes, device=gamma.device)
        layer.gamma = nn.Parameter(gamma.repeat_interleave(sizes), requires_grad=False)

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`[..., in]` to `[..., out]` in x's dtype; the same numbers as
        `experts.ternary.ternary_linear`."""
        rows = x.reshape(-1, x.shape[-1])
        x_q, scale = quantize_activations(rows.float())
        y: Tensor = integer_product(x_q, layer.weight) * (layer.gamma / scale)
        if bias is not None:
            y = y + bias.float()
        return y.to(x.dtype).reshape(*x.shape[:-1], -1)


def integer_product(x_q: Tensor, weight: Tensor) -> Tensor:
    """x_q · Wᵀ exactly: int8 `[tokens, in]` and `[out, in]` to float32 `[tokens, out]`.

    float32 holds every partial sum exactly up to `experts.ternary.MAX_EXACT_INPUTS` inputs.
    `torch._int_mm` is exact too, but without AVX-512 VNNI it took 3 times as long for one token
    and 30 times as long for 1024 (256 × 1280, one EPYC core with AVX2, torch 2.13).
    """
    return x_q.float() @ weight.float().t()


class _Parts:
    """The loaders of one layer: put each part of a merged layer, and this rank's share of it,
    into its place."""

    def __init__(self, layer: Any, sizes: list[int], inputs: int) -> None:
        self._layer = layer
        self._sizes = sizes
        self._inputs = inputs

    def load_weight(self, param: Tensor, loaded: Tensor, part: str | int | None = None) -> None:
        """`loaded` is the whole packed matrix of the part, uint8 `[out/4, in]`."""
        index = self._index(part)
        start, size = sum(self._sizes[:index]), self._sizes[index]
        values = unpack(loaded)
        values = _share(values, 0, size, self._rank(part))
        values = _share(values, 1, self._inputs, self._rank(None))
        param.data[start : start + size].copy_(values)

    def load_scale(self, param: Tensor, loaded: Tensor, part: str | int | None = None) -> None:
        """`loaded` is the part's `weight_scale`, one number."""
        param.data[self._index(part)] = loaded.reshape(()).float()

    def _index(self, part: str | int | None) -> int:
        if part is None:
            if len(self._sizes) > 1:
                raise ValueError("bitnet checkpoints with merged layers on disk are not supported")
            return 0
        return part if isinstance(part, int) else QKV.index(part)

    def _rank(self, part: str | int | None) -> int:
        rank = int(getattr(self._layer, "tp_rank", 0))
        replicas = getattr(self._layer, "num_kv_head_replicas", 1) if part in ("k", "v") else 1
        return rank // replicas


def _share(matrix: Tensor, dim: int, size: int, rank: int) -> Tensor:
    """This rank's slice of a dimension that is split in slices of `size`, if it is split."""
    return matrix if matrix.shape[dim] == size else matrix.narrow(dim, rank * size, size)
