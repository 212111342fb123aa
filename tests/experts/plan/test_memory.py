"""Predicted memory against what was measured: `tests/benchmarks/results`.

The cost of a process is measured with other models (`tests/benchmarks/plan.py --constants`); that
of an engine without a server is taken from one measurement, and the others are predicted.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experts.plan.accelerators import CPU_PROCESS_BYTES, CPU_SHARED_BYTES, Accelerator
from experts.plan.memory import bank_weight_bytes, linear_bytes, together, worker_needs
from experts.plan.models import Model

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SMALL = Model("135M", 576, 1536, 30, 9, 3, 64, 49_152, True, True, 512)
LARGE = Model("1.1B", 2048, 5632, 22, 32, 4, 64, 32_000, False, False, 512)
FLOAT32 = Accelerator("cpu", 24 << 30, 1, 1, 1, "", CPU_PROCESS_BYTES, 4, True, CPU_SHARED_BYTES)
BF16_ON_AVX2 = replace(FLOAT32, kept=2, packs_tables=False)
"""oneDNN has no bf16 product there, so nothing is packed a second time."""
CACHE = 256 << 20


def results(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text()))


def bank(experts: int, shared: bool) -> int:
    cache = CACHE // (2 * 30 * 3 * 64 * 4)
    needs = worker_needs([SMALL] * experts, FLOAT32, cache, 64, shared_table=shared)
    return needs.total


def test_banks_and_processes_within_ten_percent() -> None:
    measured = results("bank")
    processes, shared, own = (side["memory"]["pss"] for side in measured["compare"])
    swaps = [run["memory"][-1]["pss"] for run in measured["swaps"]]
    assert bank(8, True) == pytest.approx(shared, rel=0.10)
    assert bank(8, False) == pytest.approx(own, rel=0.10)
    assert [bank(32, True)] * 2 == pytest.approx(swaps, rel=0.10)
    assert together([bank(1, True)] * 8, FLOAT32) == pytest.approx(processes, rel=0.10)


def test_workers_of_the_product_within_five_percent() -> None:
    """`tests.benchmarks.plan`, which predicts with the planner as it was then."""
    rows = results("plan")["workers"]
    assert len(rows) == 6
    assert [row["ratio"] for row in rows] == pytest.approx([1] * 6, abs=0.05)


def test_workers_on_one_device_share_libraries_once() -> None:
    assert together([10], FLOAT32) == 10
    assert together([], FLOAT32) == 0
    totals = [CPU_PROCESS_BYTES] * 3
    assert together(totals, FLOAT32) == 3 * CPU_PROCESS_BYTES - 2 * CPU_SHARED_BYTES
    assert together(totals, replace(FLOAT32, shared_bytes=0)) == sum(totals)


def test_whole_processes_in_both_precisions_and_dtypes() -> None:
    """An engine without a server, resident: its process costs what the first variant says."""
    measured = results("ternary")["variants"]
    process = 0
    for variant in measured:
        device = BF16_ON_AVX2 if variant["dtype"] == "bfloat16" else FLOAT32
        model = replace(LARGE, ternary=variant["precision"] == "ternary")
        needs = bank_weight_bytes([model], device, False) + CACHE
        process = process or variant["memory"]["steady"] - needs
        assert process + needs == pytest.approx(variant["memory"]["steady"], rel=0.02)
        assert linear_bytes(model, device) == pytest.approx(variant["linear_bytes"], rel=0.01)


def test_a_bank_keeps_equal_embeddings_once() -> None:
    shared, own = (bank_weight_bytes([SMALL] * 8, FLOAT32, s) for s in (True, False))
    assert own - shared == pytest.approx(7 * 2 * 4 * 49_152 * 576, rel=0.01)


def test_ternary_weights_take_two_bits() -> None:
    seven = Model("7B", 4096, 11008, 32, 32, 32, 128, 32_000, False, True, 4096)
    gpu = replace(BF16_ON_AVX2, name="gpu")
    assert linear_bytes(seven, gpu) / linear_bytes(replace(seven, ternary=False), gpu) == (
        pytest.approx(1 / 8, rel=0.01)
    )
