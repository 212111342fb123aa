"""Which path is taken: the fastest, the one that was asked for, or torch with a warning."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from experts.kernels import dispatch
from experts.kernels.native import load_kernels
from experts.packing import pack_rows
from experts.ternary import ternary_linear


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    dispatch.kernel.cache_clear()
    yield
    dispatch.kernel.cache_clear()


def test_the_fastest_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dispatch.CHOICE, raising=False)
    assert dispatch.active() == load_kernels()[0].name


@pytest.mark.parametrize("name", ["portable", "torch"])
def test_the_one_asked_for(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(dispatch.CHOICE, name)
    assert dispatch.active() == name


def test_an_unknown_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.CHOICE, "abacus")
    with pytest.raises(ValueError, match=r"abacus.*portable, torch"):
        dispatch.active()


def test_without_the_library_torch_computes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(dispatch.CHOICE, raising=False)
    monkeypatch.setattr(dispatch, "load_kernels", list)
    weight, gamma = torch.randint(-1, 2, (6, 32), dtype=torch.int8), torch.rand(6)
    x = torch.randn(3, 32)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            y = dispatch.ternary_linear(x, pack_rows(weight), gamma)
            assert torch.equal(y, ternary_linear(x, weight, gamma))
    (record,) = caplog.records
    assert "C compiler" in record.message
