"""LIMA's residual dropout: its rate at every layer, on what attention and MLP add."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from experts.training.dropout import add_residual_dropout, dropout_profile
from tests.experts.training.conftest import tiny_config


def test_profile() -> None:
    assert dropout_profile(4, 0.3) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert dropout_profile(1, 0.3) == [0.0]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_rates_as_measured_in_the_model(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = tiny_config(kind, num_hidden_layers=4, hidden_size=128)
    model = AutoModelForCausalLM.from_config(config)
    zeros: dict[tuple[int, str], float] = {}
    add_residual_dropout(model, 0.3)
    for number, layer in enumerate(model.get_decoder().layers):
        for block in ("self_attn", "mlp"):

            def measure(module, args, output, key=(number, block)):  # type: ignore[no-untyped-def]
                states = output[0] if isinstance(output, tuple) else output
                zeros[key] = (states == 0).float().mean().item()

            getattr(layer, block).register_forward_hook(measure)
    ids = torch.arange(1, 201)[None]  # 0 is padding: zeros in every model
    model.train()(input_ids=ids)
    expected = {(n, b): 0.1 * n for n in range(4) for b in ("self_attn", "mlp")}
    assert zeros == pytest.approx(expected, abs=0.02)
    model.eval()(input_ids=ids)
    assert set(zeros.values()) == {0.0}
