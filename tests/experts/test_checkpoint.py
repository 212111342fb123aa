"""Checkpoints: written whole, read by us and by transformers alike, refused when damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from experts.bitlinear import bit_linear_layers, swap_linear_layers
from experts.checkpoint import (
    WEIGHTS_FILE,
    CheckpointError,
    load_reference,
    read_checkpoint,
    write_checkpoint,
)
from experts.packing import unpack
from experts.ternary import ternarize

Q = "model.layers.0.self_attn.q_proj.weight"


def tiny_model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    return swap_linear_layers(LlamaForCausalLM(config))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tiny_model(), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def test_weights_survive_exactly(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    for name, layer in bit_linear_layers(tiny_model()):
        values, gamma = ternarize(layer.weight)
        assert torch.equal(checkpoint.layers[name].values, values)
        assert checkpoint.layers[name].gamma == gamma.bfloat16().float()


def test_written_dtypes_and_no_tied_head(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    assert tensors[Q].dtype == torch.uint8
    assert tensors[Q + "_scale"].shape == (1,)
    assert tensors["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert "lm_head.weight" not in tensors


def test_transformers_agrees(folder: Path) -> None:
    ours = load_reference(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(60).reshape(2, 30) % 96
    with torch.inference_mode():
        a, b = ours(input_ids=ids).logits, theirs(input_ids=ids).logits
    assert (a - b).abs().max() < 0.05 * a.std()


def test_bitlinear_scale_divides(folder: Path) -> None:
    expected = read_checkpoint(folder).layers[Q.removesuffix(".weight")].gamma
    config = folder / "config.json"
    config.write_text(config.read_text().replace("autobitlinear", "bitlinear"))
    scales = {n: t for n, t in load_file(folder / WEIGHTS_FILE).items() if n.endswith("_scale")}
    rewrite(folder, **{name: 1 / scale.float() for name, scale in scales.items()})
    layer = read_checkpoint(folder).layers[Q.removesuffix(".weight")]
    assert torch.allclose(layer.gamma, expected)


def test_truncated_file_is_refused_with_the_tensor(folder: Path) -> None:
    file = folder / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"truncated.*(weight|norm)"):
        read_checkpoint(folder)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64])
def test_garbage_is_refused(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match="safetensors"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (None, "lacks"),
        (torch.zeros(3, 64, dtype=torch.uint8), "packed as"),
        (torch.zeros(64, 63), "has shape"),
        (torch.full((16, 64), 3, dtype=torch.uint8), "not ternary"),
    ],
)
def test_faulty_tensors_are_refused(
    folder: Path, tensor: torch.Tensor | None, message: str
) -> None:
    rewrite(folder, **{Q: tensor})
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(folder)
    assert Q in str(caught.value)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_faulty_scales_are_refused(folder: Path, scale: float) -> None:
    rewrite(folder, **{Q + "_scale": torch.tensor([scale])})
    with pytest.raises(CheckpointError, match=r"q_proj\.weight_scale"):
        read_checkpoint(folder)


def test_unknown_tensors_and_other_formats_are_refused(folder: Path) -> None:
    rewrite(folder, surprise=torch.zeros(1))
    with pytest.raises(CheckpointError, match="surprise"):
        read_checkpoint(folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"bitnet"', '"fp8"'))
    with pytest.raises(CheckpointError, match="bitnet"):
        read_checkpoint(folder)


def test_a_failed_write_leaves_the_old_checkpoint(folder: Path) -> None:
    def fail(part: Path) -> None:
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_checkpoint(tiny_model(1), folder, fail)
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]
    name, layer = next(bit_linear_layers(tiny_model(0)))
    values = unpack(load_file(folder / WEIGHTS_FILE)[name + ".weight"])
    assert torch.equal(values, ternarize(layer.weight)[0])
