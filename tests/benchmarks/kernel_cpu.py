"""The CPU kernel against other ways to multiply the same weights, streamed from memory.

Every contestant cycles through copies of the matrix that together are far larger than the
last-level cache, except in prefill (PREFILL tokens and more), where arithmetic rules: one copy.
Needs about 10 GiB of memory for the 70B shapes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experts import kernels
from tests.benchmarks import report
from tests.benchmarks.cpu_contestants import OURS, Loaded, Loader, loaders
from tests.benchmarks.shapes import BITNET_2B, LLAMA_7B, LLAMA_70B, Matrix, Model
from tests.benchmarks.timing import Timing, interleave, ratio

MODELS = (BITNET_2B, LLAMA_7B, LLAMA_70B)
DECODE = (1,)
BATCHES = (1, 2, 4, 8, 16, 128, 512)
"""Tokens at once; all but decode are measured on one matrix of each model, `BATCHED`."""
BATCHED = "down"
PREFILL = 128
LEAST_BYTES = 256 << 20
CACHES = 8
"""Copies of a matrix fill at least LEAST_BYTES and this many times the last-level cache."""
BANDWIDTH_BYTES = 1 << 30


@dataclass(frozen=True)
class Figure:
    """One contestant in one case.

    Attributes:
        seconds: of one product, the median of the rounds; `spread` is half their range over it.
        gweights: G weights/s, times tokens (G multiply-adds/s): weights · tokens / seconds / 1e9.
        bandwidth_share: bytes of weights read per second over the measured read bandwidth.
        ours_faster: this contestant's time over ours, the median over the rounds.
    """

    model: str
    matrix: str
    out: int
    inputs: int
    tokens: int
    threads: int
    contestant: str
    seconds: float
    spread: float
    gweights: float
    bandwidth_share: float
    ours_faster: float


def read_bandwidth(threads: int, size: int = BANDWIDTH_BYTES) -> float:
    """Bytes/s that `threads` cores read at best: the sum over a buffer of `size` bytes."""
    torch.set_num_threads(threads)
    buffer = torch.ones(size // 8, dtype=torch.int64)
    best = float("inf")
    for _ in range(7):
        began = time.perf_counter()
        buffer.sum()
        best = min(best, time.perf_counter() - began)
    return size / best


def measure(
    models: Iterable[Model],
    ways: dict[str, Loader],
    bandwidth: dict[int, float],
    least_bytes: int,
    batches: Sequence[int] = BATCHES,
) -> list[Figure]:
    """Every case of `models` with the threads that `bandwidth` (bytes/s) names. Raises
    WrongProduct if a contestant computes something else."""
    figures = []
    for model in models:
        for matrix in model.matrices:
            tokens = batches if matrix.name == BATCHED else DECODE
            loaded = _load(model, matrix, ways, least_bytes)
            for count in tokens:
                for threads in bandwidth:
                    timings = _time(matrix, loaded, count, threads)
                    figures += [
                        _figure(model, matrix, count, threads, way, timings, bandwidth[threads])
                        for way in loaded
                    ]
    return figures


def _load(model: Model, matrix: Matrix, ways: dict[str, Loader], least_bytes: int) -> list[Loaded]:
    report.progress(f"{model.name} {matrix.name}: packing {matrix.out} × {matrix.inputs}")
    generator = torch.Generator().manual_seed(matrix.weights)
    shape = (matrix.out, matrix.inputs)
    values = torch.randint(-1, 2, shape, dtype=torch.int8, generator=generator)
    x = torch.randn(3, matrix.inputs, generator=generator)
    loaded = []
    for load in ways.values():
        way = load(values, least_bytes)
        way.check(x, values)
        loaded.append(way)
    return loaded


def _time(matrix: Matrix, loaded: list[Loaded], tokens: int, threads: int) -> dict[str, Timing]:
    report.progress(f"  {matrix.name}: {tokens} tokens, {threads} threads")
    x = torch.randn(tokens, matrix.inputs)
    jobs = {}
    for way in loaded:
        copies = way.copies if tokens < PREFILL else 1
        jobs[way.name] = way.job(x, copies, threads)
    return interleave(jobs)


def _figure(
    model: Model,
    matrix: Matrix,
    tokens: int,
    threads: int,
    way: Loaded,
    timings: dict[str, Timing],
    bandwidth: float,
) -> Figure:
    timing = timings[way.name]
    return Figure(
        model=model.name,
        matrix=matrix.name,
        out=matrix.out,
        inputs=matrix.inputs,
        tokens=tokens,
        threads=threads,
        contestant=way.name,
        seconds=timing.median,
        spread=timing.spread,
        gweights=matrix.weights * tokens / timing.median / 1e9,
        bandwidth_share=matrix.weights * way.bytes_per_weight / timing.median / bandwidth,
        ours_faster=ratio(timings[OURS], timing),
    )


def tables(result: dict[str, Any]) -> None:
    """Print one table for each number of threads: a row a case, a column a contestant; "spread"
    is that of the least steady contestant, "of bandwidth" is our share."""
    figures = [Figure(**row) for row in result["figures"]]
    names = list(dict.fromkeys(f.contestant for f in figures))
    for threads, bandwidth in result["bandwidth_gb_s"].items():
        own = [f for f in figures if f.threads == int(threads)]
        rows = [_row(case, names) for case in _cases(own)]
        title = (
            f"\nG weights/s × tokens (times ours is faster), {threads} of {report.cores()} cores,"
            f" read bandwidth {bandwidth:.1f} GB/s"
        )
        columns = ["matrix", "out × in", "tokens", "spread", "of bandwidth", *names]
        report.show_table(title, columns, rows)


def _cases(figures: list[Figure]) -> list[dict[str, Figure]]:
    cases: dict[tuple[int, str, str], dict[str, Figure]] = {}
    for figure in figures:
        batch = figure.tokens if figure.tokens > 1 else 0  # decode first, then batches
        key = (min(batch, 1), figure.model, f"{figure.matrix} {figure.tokens}")
        cases.setdefault(key, {})[figure.contestant] = figure
    return [cases[key] for key in sorted(cases, key=lambda key: key[0])]


def _row(case: dict[str, Figure], names: list[str]) -> list[str]:
    ours = case[OURS]
    cells = [f"{ours.model} {ours.matrix}", f"{ours.out} × {ours.inputs}", str(ours.tokens)]
    cells.append(f"±{max(figure.spread for figure in case.values()):.0%}")
    cells.append(f"{ours.bandwidth_share:.0%}")
    for name in names:
        speed = f"{case[name].gweights:.1f}"
        cells.append(speed if name == OURS else f"{speed} ({case[name].ours_faster:.2f}×)")
    return cells


def run(models: Sequence[Model], ggml_folder: Path | None, json_out: Path | None) -> None:
    """Measure, print the tables, and write the figures and their picture."""
    ways, left_out = loaders(ggml_folder)
    machine = report.describe_cpu()
    for name, why in left_out.items():
        report.progress(f"without {name}: {why}")
    bandwidth = {threads: read_bandwidth(threads) for threads in sorted({1, machine["cores"]})}
    least_bytes = max(LEAST_BYTES, CACHES * machine["cache_bytes"])
    figures = measure(models, ways, bandwidth, least_bytes)
    result = {
        "benchmark": "kernel-cpu",
        "machine": machine,
        "kernel": kernels.active(),
        "bandwidth_gb_s": {str(n): bytes_s / 1e9 for n, bytes_s in bandwidth.items()},
        "bytes_cycled": least_bytes,
        "left_out": left_out,
        "figures": [asdict(figure) for figure in figures],
    }
    print(f"{machine['cpu']}, {' '.join(machine['isa'])}, torch {machine['torch']}")
    print(f"our kernel's path: {result['kernel']}")
    tables(result)
    if json_out is not None:
        report.write_json(json_out, result)
        report.picture_beside(json_out, "kernel_cpu", result)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here, the picture beside it")
    parser.add_argument("--ggml", type=Path, help="folder of llama.cpp's libggml-*.so")
    names = [model.name for model in MODELS]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    options = parser.parse_args(arguments)
    run([m for m in MODELS if m.name in options.models], options.ggml, options.json)


if __name__ == "__main__":
    main()
