"""The training loop: what is learned, the schedule, and a killed run that goes on the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experts.starter.arithmetic.data import examples
from experts.starter.tokenizer import build_tokenizer
from experts.train import (
    IGNORED,
    Example,
    Settings,
    Trainer,
    Turn,
    collate,
    encode,
    loss_of,
    schedule,
)
from tests.experts.test_checkpoint import tiny_model


def model() -> Any:
    small = tiny_model()
    small.resize_token_embeddings(768)
    return small


def settings(folder: Path, **changes: Any) -> Settings:
    return Settings(folder=folder, batch_tokens=256, **{"steps": 6, "save_every": 3, **changes})


class Killed(Exception):
    pass


def test_only_the_continuation_is_learned() -> None:
    tokenizer = build_tokenizer()
    example = Example((Turn("user", "What is 2+2?"),), "It is", " 4")
    row = encode(example, tokenizer)
    prompt = tokenizer.decode(row.ids[: row.start])
    assert prompt == "<|user|>What is 2+2?<|end|><|assistant|>It is"
    assert tokenizer.decode(row.ids[row.start :]) == " 4<|end|>"
    batch = collate([row, row], 0)
    assert batch.ids.shape[1] % 16 == 0
    assert (batch.labels != IGNORED).sum() == 2 * (len(row.ids) - row.start)


def test_padding_changes_nothing() -> None:
    tokenizer = build_tokenizer()
    row = encode(Example((Turn("user", "7+8"),), "", "7 + 8 = 15"), tokenizer)
    long = encode(Example((Turn("user", "7+8 " * 20),), "", "x"), tokenizer)
    alone = loss_of(model(), collate([row], 0))
    both = collate([row, long], 0)
    both.labels[1] = IGNORED
    assert torch.allclose(loss_of(model(), both), alone, atol=1e-5)


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    whole = Trainer(model(), build_tokenizer(), examples, settings(tmp_path / "a"))
    whole.run(print)

    def kill() -> None:
        raise Killed

    first = Trainer(model(), build_tokenizer(), examples, settings(tmp_path / "b"), kill)
    with pytest.raises(Killed):
        first.run(print)
    second = Trainer(model(), build_tokenizer(), examples, settings(tmp_path / "b"))
    assert second.step == 3
    second.run(print)
    assert (second.step, second.tokens) == (whole.step, whole.tokens)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_schedule() -> None:
    plan = Settings(folder=Path(), steps=1000, learning_rate=1.0)
    assert schedule(plan, 0, 0.0) == (0.01, 0.0)
    assert schedule(plan, 500, 0.05) == (1.0, 0.5)
    assert schedule(plan, 500, 0.5) == (1.0, 1.0)
    assert schedule(plan, 999, 0.85)[0] == pytest.approx(1 - 0.5**0.5)
    assert schedule(plan, 999, 1.0)[0] == pytest.approx(1e-6)


def test_steps_or_minutes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either"):
        Trainer(model(), build_tokenizer(), examples, settings(tmp_path, minutes=1))
