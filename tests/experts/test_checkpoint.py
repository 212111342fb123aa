"""Checkpoints: written whole, read by us and by transformers alike, in every form."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config
from transformers import Qwen2ForCausalLM as Qwen2

from experts.bitlinear import bit_linear_layers, swap_linear_layers
from experts.checkpoint import (
    WEIGHTS_FILE,
    PackedWeight,
    check,
    iterate,
    load_reference,
    read_checkpoint,
    write_checkpoint,
)
from experts.packing import unpack
from experts.ternary import ternarize
from tests.experts.bitnet_checkpoints import ARCHITECTURES, make

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


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """transformers compiles its BitNet layers, which takes longer than all these tests."""
    with torch.compiler.set_stance("force_eager"):
        yield


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


def test_others_may_read_it(folder: Path) -> None:
    assert (folder / WEIGHTS_FILE).stat().st_mode & 0o777 == 0o644


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


def test_a_failed_write_leaves_the_old_checkpoint(folder: Path) -> None:
    def fail(part: Path) -> None:
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_checkpoint(tiny_model(1), folder, fail)
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]
    name, layer = next(bit_linear_layers(tiny_model(0)))
    values = unpack(load_file(folder / WEIGHTS_FILE)[name + ".weight"])
    assert torch.equal(values, ternarize(layer.weight)[0])


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = (folder / WEIGHTS_FILE).read_bytes(), os.replace

    def fails(source: Path, target: Path) -> None:
        if Path(target) == folder and not Path(source).name.endswith("-old"):
            raise OSError("no")
        real(source, target)

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OSError, match="no"):
        write_checkpoint(tiny_model(1), folder)
    assert (folder / WEIGHTS_FILE).read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_what_is_beside_a_checkpoint_stays(folder: Path) -> None:
    (folder / "expert.yaml").write_text("name: mine")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("a")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"old")
    write_checkpoint(tiny_model(1), folder)
    assert (folder / "expert.yaml").read_text() == "name: mine"
    assert (folder / "notes" / "a.txt").read_text() == "a"
    assert [path.name for path in folder.glob("*.safetensors")] == [WEIGHTS_FILE]
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


VARIANTS = [
    {"linear_class": "autobitlinear"},
    {"linear_class": "autobitlinear", "use_rms_norm": True},
    {"linear_class": "bitlinear", "tie": True},
    {"linear_class": "bitlinear", "use_rms_norm": True},
    {"linear_class": "autobitlinear", "mode": "online", "tie": True},
    {"linear_class": "autobitlinear", "mode": "online", "use_rms_norm": True},
]


def logits(model: Any, vocabulary: int = 768) -> torch.Tensor:
    ids = torch.arange(60).reshape(2, 30) * 7 % vocabulary
    with torch.inference_mode():
        return model.eval()(input_ids=ids).logits.float()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_of_every_form(tmp_path: Path, architecture: str, variant: dict[str, Any]) -> None:
    """In float32 both differ by 3e-6 of the logits' spread, and by up to 0.06 where rounding puts
    a few activations on different int8 steps: the mean stays below 0.005. Whatever is left out
    (a scale, a bias, a norm) makes it more than 0.1."""
    make(tmp_path, architecture, seed=1, **variant)
    ours = logits(load_reference(tmp_path))
    theirs = logits(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32))
    assert (ours - theirs).abs().max() < 0.2 * theirs.std()
    assert (ours - theirs).square().mean().sqrt() < 0.01 * theirs.std()


def test_shards_are_read_like_one_file(tmp_path: Path) -> None:
    make(tmp_path / "one", "qwen2", seed=2)
    shutil.copytree(tmp_path / "one", tmp_path / "many")
    tensors = load_file(tmp_path / "one" / WEIGHTS_FILE)
    (tmp_path / "many" / WEIGHTS_FILE).unlink()
    save_torch_state_dict(tensors, tmp_path / "many", max_shard_size="40KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    one, many = read_checkpoint(tmp_path / "one"), read_checkpoint(tmp_path / "many")
    assert one.layers.keys() == many.layers.keys()
    for name, layer in one.layers.items():
        assert torch.equal(layer.values, many.layers[name].values)
        assert torch.equal(layer.gamma, many.layers[name].gamma)
    assert one.tensors.keys() == many.tensors.keys()
    assert all(torch.equal(one.tensors[name], many.tensors[name]) for name in one.tensors)


def test_pieces_come_packed_and_whole(folder: Path) -> None:
    pieces = dict(iterate(folder))
    packed = {name for name, piece in pieces.items() if isinstance(piece, PackedWeight)}
    assert packed == {name for name, _ in bit_linear_layers(tiny_model())}
    assert "model.embed_tokens.weight" in pieces
    seen: list[str] = []
    check(folder, seen.append)
    assert seen == list(pieces)


def test_modules_that_are_not_converted(tmp_path: Path) -> None:
    """`mlp` ends no name here, so it keeps none; `o_proj` keeps one in every block."""
    make(tmp_path, "llama", seed=3)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["modules_to_not_convert"] = ["lm_head", "o_proj", "mlp"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    changes: dict[str, torch.Tensor | None] = {}
    for block in range(2):
        name = f"model.layers.{block}.self_attn.o_proj.weight"
        changes |= {name: torch.randn(128, 128).bfloat16() / 20, f"{name}_scale": None}
    rewrite(tmp_path, **changes)
    checkpoint = read_checkpoint(tmp_path)
    assert len(checkpoint.layers) == 12
    assert not any("o_proj" in name for name in checkpoint.layers)
    theirs = logits(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32))
    assert (logits(load_reference(tmp_path)) - theirs).abs().max() < 0.2 * theirs.std()


def test_a_tied_head_may_be_in_the_file_too(folder: Path) -> None:
    embedding = load_file(folder / WEIGHTS_FILE)["model.embed_tokens.weight"]
    rewrite(folder, **{"lm_head.weight": embedding})
    assert "lm_head.weight" not in read_checkpoint(folder).tensors


def test_other_architectures_and_biases_are_written(tmp_path: Path) -> None:
    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = swap_linear_layers(Qwen2(config), keep=("lm_head", "up_proj"))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    write_checkpoint(model, tmp_path / "checkpoint")
    written = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    assert written["architectures"] == ["Qwen2ForCausalLM"]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32)
    a, b = logits(model, 96), logits(theirs, 96)
    assert (a - b).square().mean().sqrt() < 0.02 * b.std()
    c = logits(load_reference(tmp_path / "checkpoint"), 96)
    assert (c - b).square().mean().sqrt() < 0.01 * b.std()
