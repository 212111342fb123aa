"""humming-kernels 0.1.17 as far as a bank uses it, on the CPU: what it documents, and the checks
of its launcher (`csrc/launcher/tensor.h`), but a layout of its own."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

INTERVALS = [
    [0, 8, {"block_shape": [4, 256, 128]}],
    [8, 64, {"block_shape": [8, 256, 128]}],
    [64, 1 << 30, {"block_shape": [16, 256, 128]}],
]


@dataclass(frozen=True)
class LayerConfig:
    """`config/config.py`, in part. Shapes are padded ones."""

    shape_n: int
    shape_k: int
    pad_shape_n: int
    pad_shape_k: int
    b_dtype: str
    a_dtype: str | None
    c_dtype: torch.dtype
    has_bias: bool
    num_experts: int = 0


class WeightSchema(SimpleNamespace):
    hadamard_block_size = 0

    def is_compatible_with(self, input_schema: Any, dtype: torch.dtype) -> bool:
        return dtype in (torch.bfloat16, torch.float16)


class FakeHumming:
    """Keeps what it was called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict[str, Any]] = []
        self.transformed = 0
        names: dict[str, dict[str, Any]] = {
            "": {"dtypes": SimpleNamespace(DataType=SimpleNamespace(from_torch_dtype=str))},
            ".schema": {"HummingWeightSchema": WeightSchema, "HummingInputSchema": SimpleNamespace},
            ".transform": {"prepare_and_transform_humming_tensors": self._transform},
            ".tune": {"get_heuristics_config": self._tune},
            ".forward": {"humming_forward": self._forward},
        }
        for module, content in names.items():
            made = ModuleType(f"humming{module}")
            vars(made).update(content)
            monkeypatch.setitem(sys.modules, made.__name__, made)

    def _transform(
        self,
        tensors: dict[str, Tensor],
        shape_n: int,
        shape_k: int,
        weight_schema: Any,
        input_schema: Any,
        pad_n_to_multiple: int,
        pad_k_to_multiple: int,
        has_bias: bool,
        torch_dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[LayerConfig, dict[str, Tensor]]:
        """`transform.py`: checks and pads. Here, words stand with their inputs first."""
        assert tensors["weight"].shape == (shape_n, shape_k // 16)
        assert tensors["weight"].dtype == torch.int32
        assert tensors["weight_scale"].shape == (shape_n, 1)
        assert tensors["weight_scale"].dtype == torch_dtype
        assert ("bias" in tensors) == has_bias
        self.transformed += 1
        more_n, more_k = -shape_n % pad_n_to_multiple, -shape_k % pad_k_to_multiple
        config = LayerConfig(
            shape_n=shape_n + more_n,
            shape_k=shape_k + more_k,
            pad_shape_n=more_n,
            pad_shape_k=more_k,
            b_dtype=weight_schema.b_dtype,
            a_dtype=input_schema.a_dtype,
            c_dtype=torch_dtype,
            has_bias=has_bias,
        )
        done = {
            "weight": pad(tensors["weight"], (0, more_k // 16, 0, more_n)).t().contiguous(),
            "weight_scale": pad(tensors["weight_scale"], (0, 0, 0, more_n)).t().contiguous(),
        }
        if has_bias:
            done["bias"] = pad(tensors["bias"], (0, more_n))
        return config, done

    def _tune(self, layer_config: LayerConfig, gemm_type: str, **_: bool) -> list[Any]:
        assert gemm_type == "indexed"
        assert layer_config.num_experts > 0
        return INTERVALS

    def _forward(self, config: LayerConfig, **call: Any) -> Tensor:
        """`forward.py` for `indexed` products: each block of `sorted_ids` with its expert."""
        self.calls.append(call)
        assert json.loads(call["compute_config"])["gemm_type"] == "indexed"
        x, rows = call["inputs"], call["inputs"].shape[0]
        experts, n, k = config.num_experts, config.shape_n, config.shape_k
        _check(x, (rows, k - config.pad_shape_k), x.dtype)
        _check(call["weight"], (experts, k // 16, n), torch.int32)
        _check(call["weight_scale"], (experts, 1, n), config.c_dtype)
        if config.has_bias:
            _check(call["bias"], (experts, n), config.c_dtype)
        height = _block_height(call)
        ids, places, padded = _table(call)
        y = torch.full((rows, n - config.pad_shape_n), float("nan"))
        for block in range(padded // height):
            own = ids[block * height : (block + 1) * height]
            own = own[own < rows]
            y[own] = _product(config, x[own], call, int(places[block]))
        return y.to(config.c_dtype)


def _check(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert tensor.shape == shape
    assert tensor.dtype == dtype
    assert tensor.is_contiguous()


def _block_height(call: dict[str, Any]) -> int:
    rows = call["valid_shape_m"]
    (tile,) = [t for low, high, t in json.loads(call["tuning_config"]) if low < rows <= high]
    height: int = tile["block_shape"][0]
    return height


def _table(call: dict[str, Any]) -> tuple[Tensor, Tensor, int]:
    ids, places = call["sorted_ids"], call["expert_ids"]
    padded = call["num_tokens_padded"]
    for tensor in (ids, places, padded):
        _check(tensor, tuple(tensor.shape), torch.int32)
    assert padded.shape == (1,)
    assert ids.data_ptr() % 16 == 0  # read as int4
    assert call["top_k"] == 1
    return ids.long(), places.long(), int(padded)


def _product(config: LayerConfig, x: Tensor, call: dict[str, Any], expert: int) -> Tensor:
    words = call["weight"][expert].t()
    codes = torch.stack([words >> 2 * i & 3 for i in range(16)], dim=-1).flatten(1).float()
    kept = (slice(config.shape_n - config.pad_shape_n), slice(config.shape_k - config.pad_shape_k))
    if config.b_dtype == "uint2":
        values = (codes - 2)[kept]
    else:
        assert config.b_dtype == "float2e0m1"
        values = (codes % 2 * (1 - codes.floor_divide(2) * 2))[kept]
    full, scale = x.float(), torch.ones(x.shape[0], 1)
    if config.a_dtype == "int8":  # `kernel/process_input/quantization.cuh`
        scale = (full.abs().amax(1, keepdim=True) / 127).clamp(min=1e-30)
        full = (full * (1 / scale)).round()
    y: Tensor = full @ values.t() * scale * call["weight_scale"][expert].float()[:, kept[0]]
    return y + call["bias"][expert].float()[kept[0]] if config.has_bias else y
