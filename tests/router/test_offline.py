"""The transformers encoder on a tiny model: the right states, whatever the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from router.encode import Messages
from router.offline import OfflineEncoder, OfflineError
from tests.router.tiny import EARLY, HIDDEN, LAYERS, write_tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def ask(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def test_features_are_the_last_state_and_two_early_ones(checkpoint: Path, tmp_path: Path) -> None:
    encoder = OfflineEncoder(checkpoint, tmp_path)
    found = encoder.encode([ask("a b c")])[0]
    model = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.no_grad():
        states = model.model(torch.tensor([[1, 4, 5, 6, 2]]), output_hidden_states=True)
    expected = [states.hidden_states[number][0, -1] for number in (LAYERS, *EARLY)]
    np.testing.assert_allclose(found, torch.cat(expected).numpy(), atol=1e-5)
    assert encoder.size == 3 * HIDDEN


def test_padding_changes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    prompts = [
        ask("a"),
        ask("a b c d " * 20),
        ask("b"),
        [*ask("a"), {"role": "assistant", "content": "c"}],
    ]
    together = OfflineEncoder(checkpoint, tmp_path / "1").encode(prompts)
    alone = OfflineEncoder(checkpoint, tmp_path / "2")
    for prompt, features in zip(prompts, together, strict=True):
        np.testing.assert_allclose(alone.encode([prompt])[0], features, atol=1e-5)


def test_what_was_seen_is_not_encoded_again(checkpoint: Path, tmp_path: Path) -> None:
    first = OfflineEncoder(checkpoint, tmp_path).encode([ask("a"), ask("b"), ask("a")])
    new: list[tuple[int, int]] = []
    again = OfflineEncoder(checkpoint, tmp_path)
    found = again.encode([ask("b"), ask("c")], lambda done, of: new.append((done, of)))
    assert new == [(1, 1)]
    np.testing.assert_array_equal(found[0], first[1])


def test_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OfflineError, match="not a checkpoint folder"):
        OfflineEncoder(tmp_path, tmp_path)
