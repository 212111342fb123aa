"""What the weights of a whole model take, in bf16 and ternary. Needs nothing but torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tests.benchmarks.shapes import Model

ALLOCATED = ("3B", "7B")
"""Models whose memory is measured, not only computed."""


@dataclass(frozen=True)
class Bytes:
    """What a model's weights take, computed, and allocated (None: not tried or no room)."""

    model: str
    precision: str
    computed: int
    allocated: int | None


def model_tensors(model: Model, ternary: bool) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of all weights: linear layers in bf16, or packed with a float32 scale for
    each row; embedding, head and norms in bf16."""
    kept = torch.bfloat16
    tensors: list[tuple[tuple[int, ...], torch.dtype]] = [((model.other_weights,), kept)]
    for matrix in model.matrices * model.layers:
        if ternary:
            tensors.append(((matrix.out // 4, matrix.inputs), torch.uint8))
            tensors.append(((matrix.out,), torch.float32))
        else:
            tensors.append(((matrix.out, matrix.inputs), kept))
    return tensors


def model_memory(model: Model, device: torch.device) -> list[Bytes]:
    """The model in bf16 and ternary, allocated on `device` where it is CUDA and has room."""
    rows = []
    for precision in ("bf16", "ternary"):
        tensors = model_tensors(model, precision == "ternary")
        computed = sum(math.prod(shape) * dtype.itemsize for shape, dtype in tensors)
        allocated = None
        if device.type == "cuda" and model.name in ALLOCATED:
            allocated = _allocate(tensors, computed, device)
        rows.append(Bytes(model.name, precision, computed, allocated))
    return rows


def _allocate(
    tensors: list[tuple[tuple[int, ...], torch.dtype]], computed: int, device: torch.device
) -> int | None:
    """What `torch.cuda.memory_allocated` says more with `tensors` there; None without room."""
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info(device)[0] < 1.1 * computed:
        return None
    before = torch.cuda.memory_allocated(device)
    kept = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in tensors]
    allocated = torch.cuda.memory_allocated(device) - before
    kept.clear()
    return allocated
