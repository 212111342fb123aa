"""The CUDA benchmark as far as a CPU goes: Triton's interpreter, tables, memory, imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch

from experts.packing import pack
from tests.benchmarks import cuda_contestants, kernel_cuda
from tests.benchmarks.cuda_contestants import BF16, HUMMING, TRITON
from tests.benchmarks.model_memory import model_memory
from tests.benchmarks.shapes import LLAMA_3B, LLAMA_70B, Model

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = Model("3B", 64, 96, 64, 1, 100)


BARE = """
import sys
for name in ("experts", "server", "rich", "matplotlib", "vllm", "humming", "safetensors"):
    sys.modules[name] = None
"""
WHOLE_RUN = """
import json, torch
from tests.benchmarks import cuda_tables, kernel_cuda
from tests.benchmarks.shapes import Model
kernel_cuda.LEAST_SECONDS = 1e-6
tiny = Model("3B", 64, 96, 64, 1, 100)
machine = {"gpu": "none", "driver": "0", "torch": "2"}
result = kernel_cuda.collect([tiny], torch.device("cpu"), machine, 1, batches=(1, 3))
cuda_tables.show(result)
print(json.dumps(result))
"""


def bare(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` as if nothing but torch (and Triton, interpreted) were installed."""
    return subprocess.run(
        [sys.executable, "-c", BARE + code],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_whole_run_without_a_gpu() -> None:
    pytest.importorskip("triton")
    ran = bare(WHOLE_RUN)
    assert ran.returncode == 0, ran.stderr
    printed, _, last = ran.stdout.rstrip().rpartition("\n")
    assert "2.71×" in printed
    assert "3.55×" in printed
    result = json.loads(last)
    assert {row["contestant"] for row in result["figures"]} == {BF16, TRITON}, result["left_out"]
    assert len(result["figures"]) == 2 * 4 * 2
    assert result["left_out"]["int4 Marlin"] == "vllm is not installed"
    assert set(result["left_out"]) == {*HUMMING, "int4 Marlin"}
    plain = [row for row in result["figures"] if row["contestant"] == BF16]
    assert all(row["times_bf16"] == 1 and row["bytes_per_weight"] == 2 for row in plain)
    pictures = pytest.importorskip("tests.benchmarks.pictures")
    pictures.kernel_cuda(result).savefig(BytesIO())


def test_without_a_gpu_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ran = bare("from tests.benchmarks import kernel_cuda; kernel_cuda.main([])")
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: torch sees no CUDA device here")


def test_packing_is_that_of_checkpoints() -> None:
    values = torch.randint(-1, 2, (24, 10), dtype=torch.int8)
    assert torch.equal(cuda_contestants.pack_rows(values), pack(values))


def test_int4_words_hold_eight_inputs_lowest_first() -> None:
    values = torch.tensor([[-1, 0, 1, 0, 0, 0, 0, -1]], dtype=torch.int8)
    (word,) = cuda_contestants._gptq_pack(values).flatten().tolist()
    assert word & 0xFFFFFFFF == 0x78888987


def test_memory_of_whole_models() -> None:
    plain, ternary = model_memory(LLAMA_3B, CPU)
    assert plain.computed == 2 * (LLAMA_3B.linear_weights + LLAMA_3B.other_weights)
    rows = 26 * (3 * 3200 + 3200 + 2 * 8640 + 3200)
    packed = LLAMA_3B.linear_weights // 4 + 4 * rows
    assert ternary.computed == packed + 2 * LLAMA_3B.other_weights
    assert plain.allocated is None
    plain, ternary = model_memory(LLAMA_70B, CPU)
    assert plain.computed / ternary.computed > 7


def test_a_contestant_that_fails_is_left_out_with_the_reason() -> None:
    def broken(values: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such kernel")

    linear = torch.nn.functional.linear
    good = cuda_contestants.Contestant(
        BF16, lambda v: v.bfloat16() / 32, linear, lambda w: 2 * w.numel()
    )
    other = cuda_contestants.Contestant("other", broken, good.product, good.size)
    figures, failed = kernel_cuda.measure([TINY], [good, other], CPU, 1, 1e9, batches=(1,))
    assert {figure.contestant for figure in figures} == {BF16}
    assert failed["other, 3B qkv"] == "RuntimeError: no such kernel"
