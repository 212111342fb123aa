"""The verdict of a verification, and folders that are refused; e2e/test_ternary.py runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experts.checkpoint import CheckpointError
from experts.verification import judge, verify
from experts.verification_sides import (
    Ids,
    LayerRun,
    Reference,
    ReferenceText,
    Served,
    ServedText,
    VerificationError,
)
from tests.experts.bitnet_checkpoints import make


def test_a_folder_that_is_no_bitnet_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        verify(tmp_path, 4, as_json=False)
    make(tmp_path / "model", "llama")
    config = (tmp_path / "model" / "config.json").read_text()
    (tmp_path / "model" / "config.json").write_text(config.replace('"bitnet"', '"fp8"'))
    with pytest.raises(CheckpointError, match="not of a checkpoint in the bitnet format"):
        verify(tmp_path / "model", 4, as_json=False)


def both(logits: np.ndarray[Any, Any], text: Ids, difference: float) -> tuple[Reference, Served]:
    """Sides that agree on one layer, whose logits differ by `difference`."""
    tokens = np.tile(np.arange(8), (len(logits) - 1, 1))
    theirs = ReferenceText((0, 1, 2, 3), logits, logits)
    layer = {"a": LayerRun(np.zeros(1), np.zeros(1))}
    ours = ServedText(text, tokens, logits[:-1] + difference)
    return Reference([theirs], layer), Served([ours], {"a": 0.0})


def test_what_fails() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    logits[1] = [0, 0, 9, 8.99, 0, 0, 0, 0]
    theirs, ours = both(logits, (2, 3), 0.0)
    assert judge("", "float32", theirs, ours, 2).passed
    assert not judge("", "float32", theirs, replace(ours, layers={"a": 0.05}), 2).passed
    assert not judge("", "float32", theirs, replace(ours, layers={"a": np.nan}), 2).passed
    assert not judge("", "float32", *both(logits, (2, 3), 0.5), 2).passed
    assert not judge("", "float32", *both(logits, (2, 3), np.nan), 2).passed
    assert judge("", "float32", *both(logits, (3, 3), 0.0), 2).passed  # a tie
    assert not judge("", "float32", *both(logits, (4, 3), 0.0), 2).passed
    with pytest.raises(VerificationError, match="a is ternary in transformers"):
        judge("", "float32", theirs, replace(ours, layers={}), 2)
