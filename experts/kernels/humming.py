"""Ternary matrices on NVIDIA GPUs as `humming-kernels` takes them, and its grouped product.

Stands on humming-kernels 0.1.17, which vLLM 0.32 asks for, and 0.1.19: `schema/bitnet.py` and
`transform.py` (what a matrix becomes), `forward.py` (`humming_forward`), `tune/__init__.py`
(`get_heuristics_config`: intervals of rows, each with the tile to use), `config/config.py`
(`LayerConfig.num_experts`); several experts have the layout of one, stacked. Needs no vLLM, but is
called as `HummingIndexedExperts` of vLLM 0.32 calls it (`fused_moe/experts/fused_humming_moe.py`).
Never run on a GPU so far: what runs on CPU tensors is tested everywhere, the rest where
`torch.cuda.is_available()`.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from experts.kernels.blocks import Blocks
from experts.kernels.groups import Groups
from experts.kernels.slots import Weights
from experts.packing import VALUES_PER_BYTE

Activations = Literal["int8", "bf16"]
"""W1.58A8, the exact definition; or W1.58A16, activations as they are."""
LOW = 0b01010101
"""The low bits of the four codes in a byte."""
LOCKS = 8
"""Locks for each multiprocessor, as vLLM gives them (`utils/humming.py`)."""


class Batch(Protocol):
    """The rows of a mixed batch: `groups` of them, by place, and in blocks on the GPU."""

    groups: Groups

    def blocks(self, size: int) -> Blocks: ...


@dataclass(frozen=True)
class Room:
    """What a layer's places are for: `count` matrices `[outputs, inputs]`, whose products and
    biases (if `has_bias`) are of `dtype`, on `device`."""

    count: int
    outputs: int
    inputs: int
    has_bias: bool
    dtype: torch.dtype
    device: torch.device

    def empty(self) -> Weights:
        """A matrix that gives zeros."""
        height = -(-self.outputs // VALUES_PER_BYTE)
        bias = torch.zeros(self.outputs, dtype=self.dtype, device=self.device)
        return Weights(
            torch.zeros(height, self.inputs, dtype=torch.uint8, device=self.device),
            torch.zeros(self.outputs, dtype=torch.float32, device=self.device),
            bias if self.has_bias else None,
        )


class GpuSlots:
    """One layer's matrices of several experts in a GPU's memory, in humming's layout: `[count, …]`
    of each of its tensors. A slot gets a copy of what is put into it; an empty one gives zeros.
    """

    def __init__(
        self, room: Room, activations: Activations, options: dict[str, bool] | None = None
    ) -> None:
        """`options`: humming's `use_batch_invariant` and `use_f16_accum`, if any. Raises what
        `to_humming` raises."""
        self._room, self._activations = room, activations
        _, config, one = to_humming(room.empty(), room.dtype, activations)
        self._plan = plan(replace(config, num_experts=room.count), json.dumps(options or {}))
        self._stacks = {n: tensor.new_zeros(room.count, *tensor.shape) for n, tensor in one.items()}
        self._locks = torch.zeros(
            LOCKS * _multiprocessors(room.device), dtype=torch.int32, device=room.device
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the matrices of all slots take."""
        return sum(stack.nbytes for stack in self._stacks.values())

    def prepare(self, weights: Weights) -> dict[str, Tensor]:
        """What `put` takes, on the GPU, from weights that may be elsewhere."""
        there = [
            None if tensor is None else tensor.to(self._room.device)
            for tensor in (weights.packed, weights.gamma, weights.bias)
        ]
        packed, gamma, bias = there
        assert packed is not None
        assert gamma is not None
        return to_humming(Weights(packed, gamma, bias), self._room.dtype, self._activations)[2]

    def put(self, place: int, tensors: dict[str, Tensor]) -> None:
        """Bring in what `prepare` gave, which may be in pinned memory of the host; it is copied
        when the GPU comes to it."""
        for name, stack in self._stacks.items():
            stack[place].copy_(tensors[name], non_blocking=True)

    def clear(self, place: int) -> None:
        """Let the slot give zeros."""
        for name, stack in self._stacks.items():
            if name != "weight":  # all of it is multiplied with the scale
                stack[place].zero_()

    def product(self, x: Tensor, batch: Batch) -> Tensor:
        """`[rows, in]` to `[rows, out]` in x's dtype, each row with the weights of its slot. Does
        not wait for the GPU."""
        from humming.forward import humming_forward

        # humming takes it that the rows are spread over all experts.
        rows = -(-x.shape[0] * self._room.count // batch.groups.slots.numel())
        blocks = batch.blocks(self._plan.block_height(rows))
        y: Tensor = humming_forward(
            self._plan.config,
            inputs=x.contiguous(),
            **self._stacks,
            sorted_ids=blocks.rows,
            expert_ids=blocks.places,
            num_tokens_padded=blocks.padded,
            top_k=1,
            valid_shape_m=rows,
            compute_config=self._plan.compute,
            tuning_config=self._plan.tuning,
            locks=self._locks,
        )
        return y.to(x.dtype)


@dataclass(frozen=True)
class Plan:
    """How humming computes the grouped product of all layers of one shape.

    Attributes:
        config: its LayerConfig.
        compute, tuning: its compute and tuning configuration, JSON.
        uppers: for so many rows at most …
        heights: … blocks have so many.
    """

    config: Any
    compute: str
    tuning: str
    uppers: tuple[int, ...]
    heights: tuple[int, ...]

    def block_height(self, rows: int) -> int:
        return self.heights[bisect_left(self.uppers, rows)]


@cache
def plan(config: Any, options: str) -> Plan:
    """humming names the tile for each interval of rows (above its first number, up to its second).
    It compiles them all at the first product, some seconds of a core for each; later processes
    find them on the disk."""
    from humming.tune import get_heuristics_config

    compute = json.loads(options) | {"gemm_type": "indexed"}
    intervals = get_heuristics_config(layer_config=config, **compute)
    return Plan(
        config=config,
        compute=json.dumps(compute),
        tuning=json.dumps(intervals),
        uppers=tuple(upper for _, upper, _ in intervals),
        heights=tuple(tile["block_shape"][0] for _, _, tile in intervals),
    )


def to_humming(
    weights: Weights, dtype: torch.dtype, activations: Activations
) -> tuple[Any, Any, dict[str, Tensor]]:
    """One matrix on a GPU as humming reads it: its weight schema, its LayerConfig, and its tensors
    in humming's layout: `weight` int32, `weight_scale` of `dtype` (so γ is rounded to it), `bias`.

    What `BitnetWeightSchema` arrives at for the same numbers, without its copies of 4 bytes a
    weight. Raises ImportError where humming is not installed, and ValueError, RuntimeError or
    AssertionError where it cannot serve the matrix.
    """
    from humming import dtypes
    from humming.schema import HummingInputSchema, HummingWeightSchema
    from humming.transform import prepare_and_transform_humming_tensors

    rows, inputs = weights.gamma.numel(), weights.packed.shape[1]
    signed = activations == "bf16"
    schema = HummingWeightSchema(
        b_dtype="float2e0m1" if signed else "uint2",
        bs_dtype=dtypes.DataType.from_torch_dtype(dtype),
        weight_scale_group_size=0,
    )
    input_schema = HummingInputSchema(a_dtype=None if signed else "int8")
    if not schema.is_compatible_with(input_schema, dtype):
        raise ValueError(f"this GPU has no kernel for {dtype} and {activations} activations")
    tensors = {
        "weight": words(weights.packed, rows, signed),
        "weight_scale": weights.gamma.to(dtype)[:, None],
    }
    if weights.bias is not None:
        tensors["bias"] = weights.bias.to(dtype)
    config, tensors = prepare_and_transform_humming_tensors(
        tensors=tensors,
        shape_n=rows,
        shape_k=inputs,
        weight_schema=schema,
        input_schema=input_schema,
        pad_n_to_multiple=256,
        pad_k_to_multiple=128,
        has_bias=weights.bias is not None,
        torch_dtype=dtype,
        device=weights.packed.device,
    )
    return schema, config, tensors


def words(packed: Tensor, rows: int, signed: bool) -> Tensor:
    """From the Hugging Face packing to humming's: int32 `[rows, in / 16]`, sixteen inputs that
    follow each other in a word, the first one lowest (`kernel/pack_weight.cuh`).

    A weight is its value + 2, humming's `uint2`; or, `signed`, a sign above a magnitude, its
    `float2e0m1`. Raises ValueError for a matrix that humming's kernels do not take.
    """
    height, inputs = packed.shape
    if rows % 16 or inputs % 32:
        raise ValueError(f"humming takes no matrix of shape [{rows}, {inputs}]")
    whole = packed.new_empty((VALUES_PER_BYTE * height, inputs // 4))
    for quarter in range(VALUES_PER_BYTE):
        codes = ((packed >> 2 * quarter) & 3).view(height, -1, 4)
        four = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
        whole[quarter * height : (quarter + 1) * height] = _signed(four) if signed else four + LOW
    return whole[:rows].view(torch.int32)


def _signed(codes: Tensor) -> Tensor:
    """Four codes in a byte, each a value + 1, as four signs (high bits) and magnitudes."""
    return (~codes & LOW) | (~(codes | codes >> 1) & LOW) << 1


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
