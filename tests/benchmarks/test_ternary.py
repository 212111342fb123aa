"""The end-to-end benchmark: its checkpoints, its table and picture, and one real run."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from experts.packing import unpack
from tests.benchmarks import ternary
from tests.benchmarks.random_model import SIZES, write_model
from tests.benchmarks.ternary import Variant, variants

MIB = 1 << 20


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    found: dict[str, torch.Tensor] = {}
    for file in set(index.values()):
        found |= load_file(folder / file)
    assert found.keys() == index.keys()
    return found


def test_both_checkpoints_hold_the_same_weights(tmp_path: Path) -> None:
    for precision in ternary.PRECISIONS:
        write_model(SIZES["small"], precision, tmp_path / precision)
    plain, packed = tensors(tmp_path / "bf16"), tensors(tmp_path / "ternary")
    scales = {name for name in packed if name.endswith("_scale")}
    assert packed.keys() - scales == plain.keys()
    assert len(scales) == 7 * SIZES["small"].model.layers
    for name, weight in plain.items():
        other = packed[name]
        if other.dtype == torch.uint8:
            other = unpack(other).bfloat16() * packed[f"{name}_scale"]
        assert torch.equal(weight, other), name


def test_float32_is_measured_where_bf16_is_emulated() -> None:
    assert [v.name for v in variants(native_bf16=True)] == ["bfloat16", "ternary, else bfloat16"]
    assert len(variants(native_bf16=False)) == 4


def row(variant: Variant, speed: float, linear: int) -> dict[str, Any]:
    decode = [{"streams": n, "tokens_s": n * speed, "rounds": [n * speed]} for n in (1, 16)]
    memory = {"linear": linear, "linear_bf16": 100 * MIB, "steady": 900 * MIB, "peak": 1000 * MIB}
    return ternary._row(variant, {"decode": decode, "memory": memory})


def test_table_and_picture(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row(Variant("bf16", "bfloat16"), 2.0, 0),  # vLLM moved its weights elsewhere
        row(Variant("bf16", "float32"), 3.0, 0),
        row(Variant("ternary", "bfloat16"), 8.0, 13 * MIB),
    ]
    result = {
        "machine": {"cpu": "some", "cores": 2, "isa": ["avx2"]},
        "kernel": "torch",
        "vllm": "vllm 0",
        "model": {"name": "small"},
        "variants": rows,
    }
    assert [r["linear_of_bf16"] for r in rows] == [1, 2, 0.13]
    ternary.tables(result)
    printed = capsys.readouterr().out
    assert "4.00×" in printed
    assert "0.1300×" in printed
    pictures = pytest.importorskip("tests.benchmarks.pictures")
    pictures.ternary(result).savefig(BytesIO())


@pytest.mark.e2e
def test_a_real_engine_decodes_and_tells_its_memory(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder = tmp_path / "model"
    write_model(SIZES["small"], "ternary", folder)
    measured = ternary.measure("small", Variant("ternary", "float32"), folder)
    assert [case["streams"] for case in measured["decode"]] == [1, 16]
    assert all(case["tokens_s"] > 0 for case in measured["decode"])
    memory = measured["memory"]
    assert memory["linear_bf16"] == 2 * SIZES["small"].model.linear_weights
    assert 0.125 <= memory["linear"] / memory["linear_bf16"] < 0.14
    assert memory["peak"] >= memory["steady"] > 100 * MIB
