"""The CPU benchmark on tiny matrices: every contestant is right, wrong ones are caught."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.benchmarks import kernel_cpu, timing
from tests.benchmarks.cpu_contestants import (
    GAMMA,
    OURS,
    Format,
    TorchLoaded,
    WrongProduct,
    copies_for,
    loaders,
)
from tests.benchmarks.ggml import find_libraries
from tests.benchmarks.shapes import BITNET_2B, Model

TINY = Model("tiny", 256, 512, 128, 2, 100)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of a millisecond: nothing here depends on the figures."""

    def interleave(jobs: dict[str, timing.Job]) -> dict[str, timing.Timing]:
        return timing.interleave(jobs, least=0.001, rounds=2)

    monkeypatch.setattr(kernel_cpu, "interleave", interleave)


def test_shapes_of_a_block() -> None:
    shapes = {m.name: (m.out, m.inputs) for m in BITNET_2B.matrices}
    assert shapes["qkv"] == (3840, 2560)
    assert shapes["gate_up"] == (13824, 2560)
    assert shapes["down"] == (2560, 6912)
    assert BITNET_2B.linear_weights == 2_084_044_800


def test_copies_fill_the_bytes() -> None:
    assert copies_for(100, 1000) == 10
    assert copies_for(100, 1001) == 11
    assert copies_for(100, 1) == 1


def test_every_case_has_every_contestant(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    ways, left_out = loaders(None)
    assert OURS in ways
    assert {"float32", "bf16"} < ways.keys()
    figures = kernel_cpu.measure([TINY], ways, {1: 1e10}, 1 << 16, batches=(1, 3, 128))
    assert len(figures) == len(ways) * (3 + 3)  # decode everywhere, batches on one matrix
    assert all(f.ours_faster == 1 for f in figures if f.contestant == OURS)
    some = next(f for f in figures if f.contestant == "bf16" and f.tokens == 3)
    assert some.gweights == pytest.approx(256 * 512 * 3 / some.seconds / 1e9)
    assert some.bandwidth_share == pytest.approx(256 * 512 * 2 / some.seconds / 1e10)
    result = shown([figure.__dict__ for figure in figures], left_out)
    kernel_cpu.tables(result)
    printed = capsys.readouterr().out
    assert "tiny gate_up" in printed
    assert "1024 × 256" in printed
    pictures = pytest.importorskip("tests.benchmarks.pictures")
    pictures.kernel_cpu(result).savefig(BytesIO())


def shown(figures: list[dict[str, Any]], left_out: dict[str, str]) -> dict[str, Any]:
    return {
        "machine": {"cpu": "some", "isa": ["avx2"], "torch": "2"},
        "kernel": "torch",
        "bandwidth_gb_s": {"1": 10.0},
        "left_out": left_out,
        "figures": figures,
    }


def test_a_wrong_product_is_refused() -> None:
    values = torch.randint(-1, 2, (64, 32), dtype=torch.int8)
    x = torch.randn(2, 32)

    def product(x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight.t()

    good = Format("good", 4, lambda w: w.float() * GAMMA, lambda x: x, product)
    TorchLoaded(good, values, 1).check(x, values)
    bad = TorchLoaded(replace(good, pack=lambda w: w.float() * GAMMA * 1.03), values, 1)
    with pytest.raises(WrongProduct, match="good is off by"):
        bad.check(x, values)
    nearly = TorchLoaded(replace(good, name=OURS), values, 1)  # no int8 activations
    with pytest.raises(WrongProduct, match="not equal to the reference"):
        nearly.check(x, values)


def test_llama_cpp_is_found_where_its_libraries_are(tmp_path: Path) -> None:
    assert find_libraries(tmp_path) is None
    ways, left_out = loaders(tmp_path)
    assert "llama.cpp TQ2_0" in left_out
    assert "llama.cpp TQ2_0" not in ways
    (tmp_path / "libggml-cpu.so").touch()
    assert find_libraries(tmp_path) == tmp_path
