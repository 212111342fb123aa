"""The benchmark of a bank on a GPU as far as a CPU goes, with a humming that is a fake."""

from __future__ import annotations

import json

import pytest
import torch

from tests.benchmarks import bank_cuda, kernel_cuda
from tests.benchmarks.shapes import LLAMA_7B, Model
from tests.experts.kernels.fake_humming import FakeHumming

CPU = torch.device("cpu")
TINY = Model("tiny", 64, 96, 64, 2, 100)


def test_the_whole_run_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeHumming(monkeypatch)
    for module in (bank_cuda, kernel_cuda):
        monkeypatch.setattr(module, "LEAST_SECONDS", 1e-9)
    monkeypatch.setattr(bank_cuda, "TOKENS", (1, 4))
    monkeypatch.setattr(bank_cuda, "ROUNDS", 1)
    monkeypatch.setattr(bank_cuda, "PLACES", 2)
    monkeypatch.setattr(bank_cuda, "read_bandwidth", lambda device: 1e9)
    few = bank_cuda.products(TINY, CPU, 1, places=2, tokens=(1, 4))
    assert {(f.matrix, f.tokens, f.experts) for f in few} == {
        (m.name, t, n) for m in TINY.matrices for t, n in ((1, 1), (4, 1), (4, 2))
    }
    monkeypatch.setattr(bank_cuda, "products", lambda *_: few)
    machine = {"memory_bytes": 80 << 30, "cache_bytes": 1}
    result = json.loads(json.dumps(bank_cuda.collect(TINY, CPU, machine, 1)))
    assert result["swap"]["places"] == 2
    assert result["swap"]["seconds"] > 0
    bank_cuda.show(result)
    assert "GB/s" in capsys.readouterr().out


def test_rows_are_spread_evenly() -> None:
    rows = bank_cuda.Rows(8, 4, 12, CPU)
    assert rows.groups.slots.tolist() == [12, 13, 14, 15]
    assert rows.groups.begin.diff().tolist() == [2, 2, 2, 2]


def test_what_fits() -> None:
    packed = LLAMA_7B.linear_weights // 4
    fits = bank_cuda.fitting(LLAMA_7B, packed, 80 << 30)
    assert fits["bank"] > 30
    assert fits["bf16_models"] == 4


def test_without_a_gpu_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="no CUDA device"):
        bank_cuda.main([])
