"""The model of a checkpoint with our reference numerics."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from experts.checkpoint.reading import PackedWeight, Reader, TernaryWeight
from experts.ternary import ternary_linear


class TernaryLinear(nn.Module):
    """A linear layer with a fixed ternary weight: our reference at inference.

    With `norm_eps`, an RMSNorm comes before the quantization of the activations (`use_rms_norm`).
    """

    values: Tensor
    gamma: Tensor
    bias: Tensor | None

    def __init__(self, weight: TernaryWeight, norm_eps: float | None = None) -> None:
        super().__init__()
        self.register_buffer("values", weight.values)
        self.register_buffer("gamma", weight.gamma)
        self.register_buffer("bias", weight.bias)
        inputs = weight.values.shape[1]
        self.rms_norm = None if norm_eps is None else LlamaRMSNorm(inputs, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        if self.rms_norm is not None:
            x = self.rms_norm(x)
        return ternary_linear(x, self.values, self.gamma, self.bias)


def load_reference(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model of a checkpoint with our reference numerics, ready to generate."""
    reader = Reader(folder)
    config = copy.deepcopy(reader.layout.config)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    kept: dict[str, Tensor] = {}
    for name, piece in reader.pieces():
        if isinstance(piece, PackedWeight):
            layer = TernaryLinear(piece.unpack(), reader.layout.norm_eps)
            model.set_submodule(name, layer)
        else:
            kept[name] = piece
    model.load_state_dict(kept, strict=False)
    model.tie_weights()
    return model.eval()
