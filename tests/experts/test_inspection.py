"""`trivium ternary inspect`: its numbers, the table, and the picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from experts.checkpoint import WEIGHTS_FILE, CheckpointError, read_checkpoint
from experts.inspection import depth, examine, inspect, kind
from experts.ternary import ternarize
from tests.experts.bitnet_checkpoints import make

STARTER = Path(__file__).parents[2] / "experts" / "starter" / "arithmetic" / "checkpoint"


@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
def test_numbers_of_a_packed_checkpoint(tmp_path: Path, linear_class: str) -> None:
    make(tmp_path, "qwen2", linear_class=linear_class, use_rms_norm=True)  # type: ignore[arg-type]
    found = examine(tmp_path)
    read = read_checkpoint(tmp_path)
    stored = load_file(tmp_path / WEIGHTS_FILE)
    assert {layer.name for layer in found.layers} == read.layers.keys()
    assert [kind(layer.name) for layer in found.layers][:2] == [
        "self_attn.q_proj",
        "self_attn.k_proj",
    ]
    for layer in found.layers:
        values = read.layers[layer.name].values
        counts = [int((values == value).sum()) for value in (-1, 0, 1)]
        assert [layer.negative, layer.zero, layer.positive] == counts
        assert layer.scale == float(read.layers[layer.name].gamma)
        assert layer.shape == tuple(values.shape)
        own = [tensor.nbytes for name, tensor in stored.items() if name.startswith(layer.name)]
        norm = 2 * layer.shape[1]
        assert layer.stored_bytes == sum(own) - norm
    everything = [*found.layers, *found.kept]
    assert sum(t.stored_bytes for t in everything) == sum(t.nbytes for t in stored.values())


def test_an_online_checkpoint_shows_what_it_quantizes_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, "llama", mode="online")
    layer = examine(tmp_path).layers[0]
    values, gamma = ternarize(load_file(tmp_path / WEIGHTS_FILE)[f"{layer.name}.weight"])
    assert layer.zero == int((values == 0).sum())
    assert layer.scale == float(gamma)
    inspect(tmp_path, None, as_json=False)
    output = capsys.readouterr().out
    assert "online" in output
    assert f"trivium ternary pack {tmp_path} TARGET" in output


def test_table_of_the_starter(capsys: pytest.CaptureFixture[str]) -> None:
    inspect(STARTER, None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("mlp.gate_proj"))
    assert row.split()[:6] == ["mlp.gate_proj", "4", "640", "×", "256", "2.00"]
    assert row.split()[-1] == "12.5%"
    assert any(line.startswith("whole checkpoint") for line in lines)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    inspect(STARTER, None, as_json=True)
    content = json.loads(capsys.readouterr().out)
    first = content["layers"][0]
    assert first["sparsity"] == first["zero"] / (256 * 256)
    assert first["bits_per_weight"] == pytest.approx(2, abs=0.001)
    total = content["totals"]["all"]["stored_bytes"]
    assert 0 < (STARTER / WEIGHTS_FILE).stat().st_size - total < 20_000


def test_picture(tmp_path: Path) -> None:
    inspect(STARTER, tmp_path / "picture.png", as_json=True)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
    with pytest.raises(CheckpointError, match="cannot be written"):
        inspect(STARTER, tmp_path / "nowhere" / "picture.png", as_json=True)


def test_kinds_and_depths() -> None:
    assert kind("model.layers.11.self_attn.q_proj") == "self_attn.q_proj"
    assert kind("model.embed_tokens.weight") == "embed_tokens"
    assert kind("lm_head.weight") == "lm_head"
    assert (depth("model.layers.11.mlp.up_proj"), depth("lm_head")) == (11, 0)


def test_all_zero_layers_are_shown(tmp_path: Path) -> None:
    make(tmp_path, "llama")
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    name = "model.layers.1.mlp.up_proj"
    tensors[f"{name}.weight"] = torch.full_like(tensors[f"{name}.weight"], 0b01010101)
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    layer = next(layer for layer in examine(tmp_path).layers if layer.name == name)
    assert (layer.negative, layer.zero, layer.positive) == (0, layer.weights, 0)
