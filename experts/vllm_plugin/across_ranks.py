"""What a layer must know about its whole input when tensor parallelism gives it a part of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_gather,
    tensor_model_parallel_all_reduce,
)
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.utils import set_weight_attrs

PEAK_COLUMNS = 64
"""How often the largest value is appended to a part of an input: once would do, but kernels
read aligned rows faster."""


def with_peak(x: Tensor) -> Tensor:
    """Append max|x| over the whole input to this rank's part of it.

    `[..., part]` to `[..., part + PEAK_COLUMNS]` in x's dtype. Activations are quantized with one
    scale for a token's whole input; with the peak in its part (against weights of zero), every
    rank finds that scale, and the ranks' products add up to exactly what one rank computes.
    """
    peaks = tensor_model_parallel_all_gather(x.abs().amax(dim=-1, keepdim=True))
    peak = peaks.amax(dim=-1, keepdim=True)
    return torch.cat([x, peak.expand(*peak.shape[:-1], PEAK_COLUMNS)], dim=-1)


def normalize(x: Tensor, eps: float, size: int) -> Tensor:
    """x / sqrt(mean(x²) + ε) over a token's whole input of `size` values: `[..., part]` in x's
    dtype, computed in float32. RMSNorm without its weight, like transformers' `LlamaRMSNorm`."""
    full = x.float()
    squares = full.pow(2).sum(dim=-1, keepdim=True)
    if x.shape[-1] < size:
        squares = tensor_model_parallel_all_reduce(squares)
    return (full * torch.rsqrt(squares / size + eps)).to(x.dtype)


class ShardedRMSNorm(nn.Module):
    """RMSNorm over an input that is split over the ranks; each holds its part of the weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self._size, self._eps = size, eps
        part = size // get_tensor_model_parallel_world_size()
        self.weight = nn.Parameter(torch.ones(part))
        set_weight_attrs(self.weight, {"weight_loader": self._load})

    def _load(self, param: Tensor, loaded: Tensor) -> None:
        part = param.shape[0]
        param.data.copy_(loaded.narrow(0, get_tensor_model_parallel_rank() * part, part))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., part]` in x's dtype."""
        return self.weight * normalize(x, self._eps, self._size)


def rms_norm(size: int, eps: float) -> nn.Module:
    """The norm of an input of `size` values that is split over the ranks, if there are more."""
    if get_tensor_model_parallel_world_size() == 1:
        norm: nn.Module = RMSNorm(size, eps=eps)
        return norm
    return ShardedRMSNorm(size, eps)
