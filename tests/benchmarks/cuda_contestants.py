"""Who multiplies a ternary matrix on CUDA: cuBLAS in bf16, ternary kernels, int4 Marlin.

Imports nothing but torch; libraries that a contestant needs are imported when it is made, and a
contestant that cannot be made is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

BF16 = "bf16 cuBLAS"
HUMMING = {"ternary W1.58A8 (humming)": "int8", "ternary W1.58A16 (humming)": "bfloat16"}
TRITON = "ternary W1.58A8 (plain Triton)"
MARLIN = "int4 Marlin"
GAMMA = 2.0**-5
TOLERANCE = 0.03
"""Relative error (norm): bf16 results of int8 activations."""
PADDING = {"pad_n_to_multiple": 256, "pad_k_to_multiple": 128}
"""What vLLM gives to humming (`quantization/utils/humming/linear.py`)."""


class WrongProduct(Exception):
    """A contestant's product is not the product."""


@dataclass(frozen=True)
class Held:
    """One contestant's copies of one matrix: `product(x, weights[i])` is `[tokens, out]`.
    `size` is the bytes of one copy."""

    name: str
    size: int
    weights: list[Any]
    product: Callable[[Tensor, Any], Tensor]


@dataclass(frozen=True)
class Contestant:
    """`pack` makes one copy from W_q, int8 `[out, inputs]`; `size` tells its bytes."""

    name: str
    pack: Callable[[Tensor], Any]
    product: Callable[[Tensor, Any], Tensor]
    size: Callable[[Any], int]

    def hold(self, values: Tensor, least_bytes: int) -> Held:
        """Copies that fill at least `least_bytes`, checked. Raises WrongProduct."""
        first = self.pack(values)
        self._check(first, values)
        size = self.size(first)
        count = max(1, -(-least_bytes // size))
        copies = [first, *(self.pack(values) for _ in range(count - 1))]
        return Held(self.name, size, copies, self.product)

    def _check(self, weight: Any, values: Tensor) -> None:
        for tokens in (1, 17):
            x = torch.randn(tokens, values.shape[1], device=values.device, dtype=torch.bfloat16)
            expected = x.float() @ (values.float() * GAMMA).t()
            y = self.product(x, weight).float()
            error = float((y - expected).norm() / expected.norm())
            if y.shape != expected.shape or not error < TOLERANCE:
                raise WrongProduct(f"off by {error:.3f} of the product's norm, {tokens} tokens")


def contestants(device: torch.device) -> tuple[list[Contestant], dict[str, str]]:
    """Those that this machine has, bf16 first, and why others are left out."""
    made = [Contestant(BF16, _bf16_pack, torch.nn.functional.linear, _bytes)]
    left_out: dict[str, str] = {}
    for name, dtype in HUMMING.items():
        _try(made, left_out, name, partial(_humming, name, dtype))
    if len(made) == 1:  # nothing better computes ternary products here
        _try(made, left_out, TRITON, partial(_triton, device))
    _try(made, left_out, MARLIN, _marlin)
    return made, left_out


def pack_rows(values: Tensor) -> Tensor:
    """The Hugging Face `bitnet` packing (`experts.packing`), on any device: uint8
    `[out/4, inputs]`; bits 2i of byte row r hold row r + i · out/4."""
    parts = (values + 1).to(torch.uint8).reshape(4, values.shape[0] // 4, values.shape[1])
    packed = parts[0].clone()
    for i in range(1, 4):
        packed |= parts[i] << (2 * i)
    return packed


def _try(
    made: list[Contestant],
    left_out: dict[str, str],
    name: str,
    make: Callable[[], Contestant],
) -> None:
    """Make one contestant and try it on a small matrix. Whatever a library of another version
    raises, the others are still worth measuring."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        contestant = make()
        contestant.hold(torch.randint(-1, 2, (512, 512), dtype=torch.int8, device=device), 1)
    except ModuleNotFoundError as error:
        left_out[name] = f"{error.name} is not installed"
    except Exception as error:
        left_out[name] = f"{type(error).__name__}: {error}"
    else:
        made.append(contestant)


def _bytes(weight: Any) -> int:
    tensors = [weight] if isinstance(weight, Tensor) else weight
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))


def _bf16_pack(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16) * GAMMA


def _humming(name: str, dtype: str) -> Contestant:
    """`dtype` is that of the activations; int8 is quantized inside, per token."""
    from humming.layer import HummingLayer
    from humming.schema.bitnet import BitnetWeightSchema

    def pack(values: Tensor) -> Any:
        out, inputs = values.shape
        layer = HummingLayer(
            shape_n=out,
            shape_k=inputs,
            weight_config={"quant_method": "bitnet"},
            input_config={"dtype": dtype},
            torch_dtype=torch.bfloat16,
            **PADDING,
        ).to(values.device)
        weight = BitnetWeightSchema().process_loaded_weight(pack_rows(values), "weight")
        # The scale of this format divides.
        scale = torch.full((1,), 1 / GAMMA, dtype=torch.bfloat16, device=values.device)
        layer.load_from_tensors({"weight": weight, "weight_scale": scale})
        layer.transform()
        return layer

    def size(layer: Any) -> int:
        return _bytes(list(layer.parameters()))

    return Contestant(name, pack, lambda x, layer: layer(x), size)


def _triton(device: torch.device) -> Contestant:
    from tests.benchmarks.triton_ternary import ternary_linear

    programs = 4
    if device.type == "cuda":
        programs = 4 * torch.cuda.get_device_properties(device).multi_processor_count

    def pack(values: Tensor) -> tuple[Tensor, Tensor]:
        gamma = torch.full((values.shape[0],), GAMMA, device=values.device)
        return pack_rows(values), gamma

    def product(x: Tensor, weight: tuple[Tensor, Tensor]) -> Tensor:
        return ternary_linear(x, *weight, programs)

    return Contestant(TRITON, pack, product, _bytes)


def _marlin() -> Contestant:
    """vLLM's int4 kernel with the same weights as 4-bit integers, the way of its
    `MarlinLinearKernel`: groups of 128 inputs, or of 64 where 128 does not divide."""
    from vllm import _custom_ops as ops
    from vllm.model_executor.layers.quantization.utils import marlin_utils as marlin
    from vllm.scalar_type import scalar_types

    kind = scalar_types.uint4b8

    def pack(values: Tensor) -> tuple[Any, ...]:
        out, inputs = values.shape
        group = 128 if inputs % 128 == 0 else 64
        padded_n, padded_k = marlin.marlin_padded_nk(out, inputs, group)
        weight = marlin.marlin_pad_qweight(_gptq_pack(values), out, inputs, padded_n, padded_k)
        weight = ops.gptq_marlin_repack(weight, size_k=padded_k, size_n=padded_n, num_bits=4)
        shape = (inputs // group, out)
        scales = torch.full(shape, GAMMA, dtype=torch.bfloat16, device=values.device)
        scales = marlin.marlin_pad_scales(scales, out, inputs, padded_n, padded_k, group)
        scales = marlin.marlin_permute_scales(scales, padded_k, padded_n, group)
        zeros = marlin.marlin_make_empty(values.device)
        workspace = marlin.marlin_make_workspace_new(values.device)
        return weight, scales, zeros, workspace, (out, inputs)

    def product(x: Tensor, packed: tuple[Any, ...]) -> Tensor:
        weight, scales, zeros, workspace, (out, inputs) = packed
        y: Tensor = marlin.apply_gptq_marlin_linear(
            input=x,
            weight=weight,
            weight_scale=scales,
            weight_zp=zeros,
            workspace=workspace,
            wtype=kind,
            output_size_per_partition=out,
            input_size_per_partition=inputs,
        )
        return y

    return Contestant(MARLIN, pack, product, lambda packed: _bytes(packed[:2]))


def _gptq_pack(values: Tensor) -> Tensor:
    """int32 `[inputs/8, out]`: eight consecutive inputs in a word, the first one lowest, each
    stored plus 8."""
    codes = (values.t().to(torch.int32) + 8).reshape(values.shape[1] // 8, 8, values.shape[0])
    words = codes[:, 0].clone()
    for i in range(1, 8):
        words |= codes[:, i] << (4 * i)
    return words.contiguous()
