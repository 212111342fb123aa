"""Head files: what is written is read, and fits the meta worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from router.head import Background
from router.head_file import HeadFacts, HeadFileError, read_head, write_head
from router.joint import JointFit
from router.vocabulary import DEFAULT_SLOTS

KINDS = Background(np.ones((3, 4), np.float32), np.array([0, 1, 2], np.float32))
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
FIT = JointFit(ROWS, np.array([0.5, -1], np.float32), 0.25, KINDS)
FACTS = HeadFacts(["a", "b"], "print", 0.25, {"seed": 3})


def test_a_head_comes_back(tmp_path: Path) -> None:
    write_head(tmp_path / "new" / "head.safetensors", FIT, FACTS)
    fit, facts = read_head(tmp_path / "new" / "head.safetensors")
    assert facts == FACTS
    assert fit.margin == 0.25
    np.testing.assert_array_equal(fit.weights, FIT.weights)
    np.testing.assert_array_equal(fit.bias, FIT.bias)
    states = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(fit.scores(states), FIT.scores(states))


def test_the_meta_worker_takes_it(tmp_path: Path) -> None:
    write_head(tmp_path / "head", FIT, FACTS)
    tensors = load_file(tmp_path / "head")
    assert tensors["rows"].shape == (3, DEFAULT_SLOTS, 4)
    assert np.isneginf(tensors["bias"][0, 2:]).all(), "unused slots"
    assert np.isneginf(tensors["bias"][1:]).all(), "nothing is handed over later"


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("text")
    for name in ("other", "nowhere"):
        with pytest.raises(HeadFileError, match="not a head"):
            read_head(tmp_path / name)
