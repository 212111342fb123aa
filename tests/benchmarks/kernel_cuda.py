"""The ternary product on CUDA against bf16 cuBLAS and int4 Marlin, and the memory of models.

Runs on a machine with nothing but torch: `python3 tests/benchmarks/kernel_cuda.py --json OUT`.
Install `humming-kernels[cu13]` (or cu12) and vLLM for the kernels that Trivium serves with.
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

if not __package__:  # run as a script: this folder's modules must not stand for installed ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.benchmarks import cuda_tables, report
from tests.benchmarks.cuda_contestants import BF16, Contestant, Held, contestants
from tests.benchmarks.model_memory import model_memory
from tests.benchmarks.shapes import LLAMA_3B, LLAMA_7B, LLAMA_70B, Matrix, Model
from tests.benchmarks.timing import Job, Timing, interleave, ratio

MODELS = (LLAMA_3B, LLAMA_7B, LLAMA_70B)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LEAST_BYTES = 256 << 20
CACHES = 4
"""Copies of a matrix fill at least LEAST_BYTES and this many times the L2 cache."""
LEAST_SECONDS = 0.02
PAPER = {"latency": {"3B": 2.71, "70B": 4.1}, "memory": {"3B": 3.55}}
"""BitNet b1.58 against LLaMA in fp16 (arXiv 2402.17764, tables and figure 2): whole models, on
the authors' own kernel and GPUs."""


@dataclass(frozen=True)
class Figure:
    """One contestant in one case; `seconds` of one product, the median of the rounds, `spread`
    half their range over it, `bandwidth_share` of the measured read bandwidth, `times_bf16` how
    many times faster than bf16 (median over the rounds), `graph` whether a CUDA graph ran."""

    model: str
    matrix: str
    out: int
    inputs: int
    tokens: int
    contestant: str
    seconds: float
    spread: float
    bytes_per_weight: float
    bandwidth_share: float
    times_bf16: float
    graph: bool


def device_clock() -> float:
    """Seconds, after all work on the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(
    models: Sequence[Model],
    ways: list[Contestant],
    device: torch.device,
    least_bytes: int,
    bandwidth: float,
    batches: Sequence[int] = BATCHES,
) -> tuple[list[Figure], dict[str, str]]:
    """Every matrix of `models` at every batch; and what failed on which matrix."""
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    for model in models:
        for matrix in model.matrices:
            report.progress(f"{model.name} {matrix.name}: {matrix.out} × {matrix.inputs}")
            held = _hold(model, matrix, ways, device, least_bytes, failed)
            for tokens in batches:
                x = torch.randn(tokens, matrix.inputs, device=device, dtype=torch.bfloat16)
                case = f"{model.name} {matrix.name}, {tokens} tokens"
                jobs = _jobs(held, x, case, failed)
                passes = {name: job for name, (job, _) in jobs.items()}
                timings = interleave(passes, LEAST_SECONDS, clock=device_clock)
                for way in (way for way in held if way.name in jobs):
                    graph = jobs[way.name][1]
                    figures.append(_figure(model, matrix, tokens, way, timings, graph, bandwidth))
    return figures, failed


def _hold(
    model: Model,
    matrix: Matrix,
    ways: list[Contestant],
    device: torch.device,
    least_bytes: int,
    failed: dict[str, str],
) -> list[Held]:
    shape = (matrix.out, matrix.inputs)
    values = torch.randint(-1, 2, shape, dtype=torch.int8, device=device)
    held = []
    for way in ways:
        try:
            held.append(way.hold(values, least_bytes))
        except Exception as error:  # another shape may do; the other contestants still count
            _note(failed, way.name, f"{model.name} {matrix.name}", error)
    return held


def _jobs(
    held: list[Held], x: torch.Tensor, case: str, failed: dict[str, str]
) -> dict[str, tuple[Job, bool]]:
    """Passes over all copies, and whether they are CUDA graphs, by contestant."""
    jobs = {}
    for way in held:
        try:
            jobs[way.name] = _job(way, x)
        except Exception as error:
            _note(failed, way.name, case, error)
    return jobs


def _job(held: Held, x: torch.Tensor) -> tuple[Job, bool]:
    """A pass over all copies, as a CUDA graph where that can be captured."""

    def one_pass() -> None:
        for weight in held.weights:
            held.product(x, weight)

    plain = Job(one_pass, len(held.weights))
    if not x.is_cuda:
        one_pass()
        return plain, False
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        one_pass()  # compiles and tunes what is compiled at first use
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            one_pass()
    except RuntimeError:
        torch.cuda.synchronize()
        return plain, False
    return Job(graph.replay, len(held.weights)), True


def _note(failed: dict[str, str], name: str, case: str, error: Exception) -> None:
    """Remember a failure. bf16 is what the others are compared with: without it, no run."""
    if name == BF16:
        raise error
    failed[f"{name}, {case}"] = f"{type(error).__name__}: {error}"


def _figure(
    model: Model,
    matrix: Matrix,
    tokens: int,
    held: Held,
    timings: dict[str, Timing],
    graph: bool,
    bandwidth: float,
) -> Figure:
    timing = timings[held.name]
    return Figure(
        model=model.name,
        matrix=matrix.name,
        out=matrix.out,
        inputs=matrix.inputs,
        tokens=tokens,
        contestant=held.name,
        seconds=timing.median,
        spread=timing.spread,
        bytes_per_weight=held.size / matrix.weights,
        bandwidth_share=held.size / timing.median / bandwidth,
        times_bf16=ratio(timing, timings[BF16]),
        graph=graph,
    )


def read_bandwidth(device: torch.device, size: int = 1 << 30) -> float:
    """Bytes/s read at best: the sum over a buffer of `size` bytes."""
    buffer = torch.ones(size // 4, dtype=torch.float32, device=device)
    best = float("inf")
    for _ in range(10):
        began = device_clock()
        buffer.sum()
        best = min(best, device_clock() - began)
    return size / best


def latency_ratios(figures: list[Figure]) -> dict[str, dict[str, float]]:
    """For each model, how many times faster than bf16 the products of one block are for one
    token, by contestant."""
    ratios: dict[str, dict[str, float]] = {}
    for model in dict.fromkeys(f.model for f in figures):
        totals: dict[str, list[float]] = {}
        for figure in figures:
            if figure.model == model and figure.tokens == 1:
                totals.setdefault(figure.contestant, []).append(figure.seconds)
        whole = {name: sum(s) for name, s in totals.items() if len(s) == len(totals[BF16])}
        ratios[model] = {name: whole[BF16] / seconds for name, seconds in whole.items()}
    return ratios


def collect(
    models: Sequence[Model],
    device: torch.device,
    machine: dict[str, Any],
    least_bytes: int,
    batches: Sequence[int] = BATCHES,
) -> dict[str, Any]:
    """All figures of one run, as they are written. `device` is CUDA, but for tests."""
    ways, left_out = contestants(device)
    for name, why in left_out.items():
        report.progress(f"without {name}: {why}")
    bandwidth = read_bandwidth(device)
    memory = [row for model in models for row in model_memory(model, device)]
    figures, failed = measure(models, ways, device, least_bytes, bandwidth, batches)
    return {
        "benchmark": "kernel-cuda",
        "machine": machine,
        "bandwidth_gb_s": bandwidth / 1e9,
        "bytes_cycled": least_bytes,
        "left_out": {**left_out, **failed},
        "paper": PAPER,
        "latency_ratios": latency_ratios(figures),
        "memory": [asdict(row) for row in memory],
        "figures": [asdict(figure) for figure in figures],
    }


def run(models: Sequence[Model], json_out: Path | None) -> None:
    """Measure, print the tables, and write the figures and their picture."""
    device = torch.device("cuda", torch.cuda.current_device())
    machine = report.describe_gpu(device)
    least_bytes = max(LEAST_BYTES, CACHES * machine["cache_bytes"])
    result = collect(models, device, machine, least_bytes)
    print(f"{machine['gpu']}, driver {machine['driver']}, torch {machine['torch']}", end=", ")
    print(f"read bandwidth {result['bandwidth_gb_s']:.0f} GB/s")
    cuda_tables.show(result)
    for name, why in result["left_out"].items():
        print(f"without {name}: {why}")
    if json_out is not None:
        report.write_json(json_out, result)
        report.picture_beside(json_out, "kernel_cuda", result)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here, the picture beside it")
    names = [model.name for model in MODELS]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.exit("error: torch sees no CUDA device here; `--device cpu` measures the CPU kernel")
    run([m for m in MODELS if m.name in options.models], options.json)


if __name__ == "__main__":
    main()
