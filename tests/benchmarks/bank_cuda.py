"""A bank on a GPU: grouped products of 7B shapes, swaps of 7B experts, how many of them fit.

`python -m tests.benchmarks.bank_cuda --json OUT`, on a machine with torch and
`humming-kernels[cu13]` (or cu12). vLLM is not needed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experts.kernels import Groups, Weights
from experts.kernels.blocks import Blocks
from experts.kernels.humming import GpuSlots, Room
from experts.vllm_plugin.bank.host import PinnedMemory, aside
from tests.benchmarks import report
from tests.benchmarks.cuda_contestants import BF16, Held, contestants, pack_rows
from tests.benchmarks.kernel_cuda import (
    CACHES,
    LEAST_BYTES,
    LEAST_SECONDS,
    _job,
    device_clock,
    read_bandwidth,
)
from tests.benchmarks.shapes import LLAMA_7B, Matrix, Model
from tests.benchmarks.timing import interleave, ratio

SINGLE = "ternary W1.58A8 (humming)"
"""The kernel of a worker that serves one expert, as `cuda_contestants` names it."""
PLACES = 32
EXPERTS = (1, 2, 4, 8, 16, 32)
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ROUNDS = 5
KV_BYTES = 16 << 30
USED = 0.9
"""Share of a GPU's memory that vLLM takes, and what of it is left to the KV cache."""


@dataclass(frozen=True)
class Product:
    """One matrix, `tokens` rows of `experts` experts in a batch. `seconds` of the bank's product,
    of one bf16 product by cuBLAS for all rows, of the single expert's ternary kernel for all rows;
    medians. `times_bf16`, `times_single`: how many times faster the bank's is."""

    matrix: str
    tokens: int
    experts: int
    seconds: float
    bf16_seconds: float
    single_seconds: float | None
    times_bf16: float
    times_single: float | None
    spread: float


@dataclass(frozen=True)
class Swap:
    """A 7B expert's ternary layers: bytes on the GPU and seconds from pinned memory into a place;
    seconds until the calls that ask for it return; seconds to put them into humming's layout,
    once, when the expert is read; places that they were swapped in."""

    bytes: int
    seconds: float
    calls_seconds: float
    gb_s: float
    prepare_seconds: float
    places: int


class Rows:
    """A batch of `tokens` rows, spread evenly over `experts` places from `first` on."""

    def __init__(self, tokens: int, experts: int, first: int, device: torch.device) -> None:
        places = first + torch.arange(tokens) * experts // tokens
        self.groups = Groups.of(places)
        self._device = device
        self._made: dict[int, Blocks] = {}

    def blocks(self, size: int) -> Blocks:
        if size not in self._made:
            self._made[size] = Blocks.of(self.groups, size, self._device)
        return self._made[size]


def room(matrix: Matrix, places: int, device: torch.device) -> Room:
    return Room(places, matrix.out, matrix.inputs, False, torch.bfloat16, device)


def random_weights(matrix: Matrix, device: torch.device) -> Weights:
    shape = (matrix.out, matrix.inputs)
    values = torch.randint(-1, 2, shape, dtype=torch.int8, device=device)
    return Weights(pack_rows(values), torch.full((matrix.out,), 2.0**-5, device=device))


def filled(matrix: Matrix, places: int, device: torch.device) -> GpuSlots:
    """Random matrices in all places."""
    slots = GpuSlots(room(matrix, places, device), "int8")
    for place in range(places):
        slots.put(place, slots.prepare(random_weights(matrix, device)))
    return slots


def bank(copies: list[GpuSlots], places: int, tokens: int, experts: int) -> Held:
    """Products that read all places of all copies in turn, so that no cache holds them."""
    device = copies[0]._room.device
    batches = [Rows(tokens, experts, first, device) for first in range(0, places, experts)]
    pairs = [(slots, rows) for slots in copies for rows in batches]
    size = copies[0].nbytes // places * experts
    return Held("bank", size, pairs, lambda x, pair: pair[0].product(x, pair[1]))


def products(
    model: Model,
    device: torch.device,
    least_bytes: int,
    places: int = PLACES,
    tokens: Sequence[int] = TOKENS,
) -> list[Product]:
    """Every matrix of a block, every batch."""
    figures = []
    ways = [way for way in contestants(device)[0] if way.name in (BF16, SINGLE)]
    for matrix in model.matrices:
        report.progress(f"{matrix.name}: {matrix.out} × {matrix.inputs}")
        shape = (matrix.out, matrix.inputs)
        values = torch.randint(-1, 2, shape, dtype=torch.int8, device=device)
        others = [way.hold(values, least_bytes) for way in ways]
        first = filled(matrix, places, device)
        more = range(-(-least_bytes // first.nbytes) - 1)
        copies = [first, *(filled(matrix, places, device) for _ in more)]
        for count in tokens:
            x = torch.randn(count, matrix.inputs, device=device, dtype=torch.bfloat16)
            for experts in (n for n in EXPERTS if n <= min(count, places)):
                held = [bank(copies, places, count, experts), *others]
                figures.append(_product(matrix, count, experts, x, held))
    return figures


def _product(
    matrix: Matrix, tokens: int, experts: int, x: torch.Tensor, held: list[Held]
) -> Product:
    jobs = {way.name: _job(way, x)[0] for way in held}
    timings = interleave(jobs, LEAST_SECONDS, ROUNDS, clock=device_clock)
    ours, bf16, single = (timings.get(name) for name in ("bank", BF16, SINGLE))
    assert ours is not None
    assert bf16 is not None
    return Product(
        matrix=matrix.name,
        tokens=tokens,
        experts=experts,
        seconds=ours.median,
        bf16_seconds=bf16.median,
        single_seconds=None if single is None else single.median,
        times_bf16=ratio(ours, bf16),
        times_single=None if single is None else ratio(ours, single),
        spread=ours.spread,
    )


def swaps(model: Model, device: torch.device, places: int, times: int = 8) -> Swap:
    """Two experts take turns in the places of a whole model's ternary layers."""
    layers = [
        (matrix, GpuSlots(room(matrix, places, device), "int8"))
        for _ in range(model.layers)
        for matrix in model.matrices
    ]
    size = sum(slots.nbytes for _, slots in layers) // places
    one_block = [random_weights(matrix, torch.device("cpu")) for matrix in model.matrices]
    experts, seconds = [], []
    for _ in range(2):
        memory = PinnedMemory(size, pin=device.type == "cuda")
        began = device_clock()
        with aside(device):
            experts.append(
                [
                    {n: memory.hold(t) for n, t in slots.prepare(weights).items()}
                    for (_, slots), weights in zip(layers, one_block * model.layers, strict=True)
                ]
            )
        seconds.append(device_clock() - began)
    moved, asked = [], []
    for turn in range(times):
        began = device_clock()
        for (_, slots), tensors in zip(layers, experts[turn % 2], strict=True):
            slots.put(turn % places, tensors)
        asked.append(time.perf_counter() - began)
        moved.append(device_clock() - began)
    best = sorted(moved)[times // 2]
    return Swap(size, best, sorted(asked)[times // 2], size / best / 1e9, seconds[-1], places)


def step_seconds(tokens: int, experts: int, device: torch.device, times: int = 50) -> float:
    """Seconds of Python that a step spends on its groups and one table, before its layers."""
    Rows(tokens, experts, 0, device).blocks(16)
    began = device_clock()
    for _ in range(times):
        Rows(tokens, experts, 0, device).blocks(16)
    return (device_clock() - began) / times


def fitting(model: Model, expert_bytes: int, memory_bytes: int) -> dict[str, float]:
    """How many experts fit into a GPU: ternary layers of each, one pair of tables, KV cache."""
    tables = 2 * model.other_weights
    free = USED * memory_bytes - KV_BYTES - tables
    plain = 2 * (model.linear_weights + model.other_weights)
    return {
        "bank": int(free // expert_bytes),
        "bf16_models": int((USED * memory_bytes - KV_BYTES) // plain),
        "kv_gb": KV_BYTES / 1e9,
        "expert_gb": expert_bytes / 1e9,
    }


def collect(
    model: Model, device: torch.device, machine: dict[str, Any], least_bytes: int
) -> dict[str, Any]:
    """All figures of one run, as they are written."""
    figures = products(model, device, least_bytes)
    release(device)
    expert = sum(-(-m.out // 256) * 256 * m.inputs // 4 for m in model.matrices) * model.layers
    places = max(2, min(PLACES, int(0.6 * machine["memory_bytes"]) // expert))
    report.progress(f"swaps of {model.name} experts among {places} places")
    swap = swaps(model, device, places)
    release(device)
    return {
        "benchmark": "bank-cuda",
        "machine": machine,
        "model": model.name,
        "bandwidth_gb_s": read_bandwidth(device) / 1e9,
        "bytes_cycled": least_bytes,
        "swap": asdict(swap),
        "fits": fitting(model, swap.bytes, machine["memory_bytes"]),
        "step_seconds": {n: step_seconds(256, n, device) for n in (1, 32)},
        "products": [asdict(figure) for figure in figures],
    }


def release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    for matrix in dict.fromkeys(row["matrix"] for row in result["products"]):
        rows = [row for row in result["products"] if row["matrix"] == matrix]
        names = ("tokens", "experts", "bank, µs", "× bf16", "× single ternary", "spread")
        report.show_table(f"{result['model']} {matrix}", names, [_row(row) for row in rows])
    swap, fits = result["swap"], result["fits"]
    print(f"swap of {swap['bytes'] / 1e9:.2f} GB: {1e3 * swap['seconds']:.1f} ms", end=", ")
    print(f"{swap['gb_s']:.1f} GB/s; calls return after {1e3 * swap['calls_seconds']:.1f} ms")
    print(f"layout of one expert, when it is read: {swap['prepare_seconds']:.2f} s")
    print(f"fit: {fits['bank']} experts, or {fits['bf16_models']} in bf16", end=", ")
    print(f"beside {fits['kv_gb']:.0f} GB of KV cache")


def _row(row: dict[str, Any]) -> list[str]:
    single = row["times_single"]
    return [
        str(row["tokens"]),
        str(row["experts"]),
        f"{1e6 * row['seconds']:.1f}",
        f"{row['times_bf16']:.2f}",
        "–" if single is None else f"{single:.2f}",
        f"{100 * row['spread']:.0f} %",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.exit("error: torch sees no CUDA device here")
    device = torch.device("cuda", torch.cuda.current_device())
    machine = report.describe_gpu(device)
    least_bytes = max(LEAST_BYTES, CACHES * machine["cache_bytes"])
    result = collect(LLAMA_7B, device, machine, least_bytes)
    show(result)
    if options.json is not None:
        report.write_json(options.json, result)


if __name__ == "__main__":
    main()
