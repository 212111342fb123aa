"""Damaged checkpoints: each kind of damage has its own message, which names where it is."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from experts.checkpoint import (
    WEIGHTS_FILE,
    CheckpointError,
    check,
    load_reference,
    pack_checkpoint,
    read_checkpoint,
)
from experts.cli import app
from tests.experts.bitnet_checkpoints import make

Q = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
NORM = "model.layers.1.input_layernorm.weight"
INDEX = "model.safetensors.index.json"
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make(folder, "llama", tie=True, seed=1)
    check(folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "checkpoint"))


def tensor(name: str, value: torch.Tensor | None) -> Damage:
    """Put `value` in the place of a tensor, or take it away."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_FILE)
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
        save_file(tensors, folder / WEIGHTS_FILE)

    return damage


def content(change: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / WEIGHTS_FILE
        file.write_bytes(change(file.read_bytes()))

    return damage


def header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the JSON header and leave the rest of the file as it is."""

    def rewrite(old: bytes) -> bytes:
        (length,) = struct.unpack("<Q", old[:8])
        fields = json.loads(old[8 : 8 + length])
        change(fields)
        new = json.dumps(fields).encode()
        return struct.pack("<Q", len(new)) + new + old[8 + length :]

    return content(rewrite)


def shards(change: Callable[[Path], object]) -> Damage:
    """Split the file into shards, then damage them."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_FILE)
        (folder / WEIGHTS_FILE).unlink()
        save_torch_state_dict(tensors, folder, max_shard_size="40KB")
        check(folder)
        change(folder)

    return damage


def move(folder: Path, name: str, keep: bool) -> None:
    """Move a tensor from its shard into another, or copy it there."""
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    source = folder / places[name]
    target = next(folder / shard for shard in places.values() if shard != places[name])
    tensors = load_file(source)
    save_file({**load_file(target), name: tensors[name]}, target)
    if not keep:
        save_file({n: t for n, t in tensors.items() if n != name}, source)


def drop_shard_of(folder: Path, name: str) -> None:
    (folder / json.loads((folder / INDEX).read_text())["weight_map"][name]).unlink()


def config(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        fields = json.loads(file.read_text())
        change(fields)
        file.write_text(json.dumps(fields))

    return damage


def quantization(**fields: Any) -> Damage:
    return config(lambda c: c["quantization_config"].update(fields))


def only_a_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS_FILE), folder / "pytorch_model.bin")
    (folder / WEIGHTS_FILE).unlink()


def shift(fields: dict[str, Any]) -> None:
    """Let the last tensor of the file begin and end one byte earlier: it overlaps another."""
    last = max(fields.values(), key=lambda f: f.get("data_offsets", [0, 0])[1])
    last["data_offsets"] = [offset - 1 for offset in last["data_offsets"]]


def with_nan(rows: int, columns: int | None = None) -> torch.Tensor:
    value = torch.ones(rows) if columns is None else torch.ones(rows, columns)
    value.view(-1)[-3] = torch.nan
    return value.bfloat16()


DAMAGES: dict[str, tuple[Damage, str]] = {
    "empty file": (content(lambda old: b""), "model.safetensors is not a safetensors file"),
    "header length absurd": (content(lambda old: b"\xff" * 8 + old[8:]), "no valid length"),
    "cut in the header": (content(lambda old: old[:100]), "ends within its header"),
    "header is no JSON": (content(lambda old: old[:8] + b"\xff" * 40 + old[48:]), "is no JSON"),
    "header is a list": (content(lambda old: b"\2" + bytes(7) + b"[]"), "no JSON object"),
    "cut in the data": (content(lambda old: old[:-40]), r"truncated.* the end of model\.\S+"),
    "bytes too many": (content(lambda old: old + b"more"), "4 bytes too many after model"),
    "entry without dtype": (header(lambda h: h[Q].pop("dtype")), f"entry of {Q} is damaged"),
    "unknown dtype": (header(lambda h: h[Q].update(dtype="T2")), f"{Q} has the unknown dtype T2"),
    "shape and bytes differ": (header(lambda h: h[Q].update(shape=[9, 9])), f"gives {Q} .*bytes"),
    "offsets overlap": (header(shift), r"model\S+ and model\S+ overlap"),
    "offsets leave a gap": (header(lambda h: h.pop(Q)), "gap between model"),
    "missing tensor": (tensor(NORM, None), f"lacks the tensor {NORM}"),
    "unknown tensor": (tensor("surprise", torch.zeros(1)), "no place for: surprise"),
    "wrong shape": (tensor(Q, torch.zeros(3, 128).byte()), rf"{Q} .*\[3, 128\] .*\[32, 128\]"),
    "wrong shape of a norm": (tensor(NORM, torch.ones(64)), rf"{NORM} .*\[64\] .*\[128\]"),
    "wrong dtype": (tensor(Q, torch.zeros(32, 128).char()), f"{Q} .*dtype I8 instead of U8"),
    "unpacked weight": (tensor(Q, torch.zeros(128, 128)), f"{Q} .*dtype F32 instead of U8"),
    "integer norm": (tensor(NORM, torch.ones(128).long()), f"{NORM} .*dtype I64"),
    "not ternary": (tensor(Q, torch.full((32, 128), 12).byte()), f"{Q} .*not ternary"),
    "scale missing": (tensor(f"{Q}_scale", None), f"lacks the tensor {Q}_scale"),
    "scale NaN": (tensor(f"{Q}_scale", torch.tensor([torch.nan])), f"{Q}_scale .*is nan"),
    "scale zero": (tensor(f"{Q}_scale", torch.zeros(1)), f"{Q}_scale .*is 0, not a positive"),
    "scale negative": (tensor(f"{Q}_scale", -torch.ones(1)), f"{Q}_scale .*is -1, not a positive"),
    "scale infinite": (tensor(f"{Q}_scale", torch.tensor([torch.inf])), f"{Q}_scale .*is inf"),
    "many scales": (tensor(f"{Q}_scale", torch.ones(128)), rf"{Q}_scale .*\[128\] .*\[1\]"),
    "NaN in the embedding": (tensor(EMBEDDING, with_nan(768, 128)), f"{EMBEDDING} .*NaN"),
    "NaN in a norm": (tensor(NORM, with_nan(128)), f"{NORM} .*NaN"),
    "two different heads": (
        tensor("lm_head.weight", torch.zeros(768, 128)),
        f"lm_head.weight differs from {EMBEDDING}",
    ),
    "shard missing": (shards(lambda f: drop_shard_of(f, Q)), r"model-\d+\S+ is missing"),
    "index is no JSON": (shards(lambda f: (f / INDEX).write_text("{")), f"{INDEX} is damaged"),
    "index names a tensor the shard lacks": (
        shards(lambda f: move(f, Q, keep=False)),
        rf"index.json says that model-\S+ holds {Q}",
    ),
    "tensor in two shards": (
        shards(lambda f: move(f, Q, keep=True)),
        rf"{Q} is in two shards: \S+ and \S+",
    ),
    "shard outside the folder": (
        shards(lambda f: (f / INDEX).write_text(json.dumps({"weight_map": {Q: "../x"}}))),
        f"{Q} outside the folder",
    ),
    "pickle only": (only_a_pickle, "pickle.*pytorch_model.bin.*save_file"),
    "no weights": (lambda f: (f / WEIGHTS_FILE).unlink(), "holds no weights"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "config is no JSON": (
        lambda f: (f / "config.json").write_text("{"),
        "config.json is not JSON",
    ),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
    "unknown architecture": (config(lambda c: c.update(model_type="nobody")), "nobody"),
    "not a language model": (config(lambda c: c.update(model_type="vit")), "config.json describes"),
    "impossible size": (config(lambda c: c.update(hidden_size="many")), "hidden_size"),
    "no quantization_config": (
        config(lambda c: c.pop("quantization_config")),
        "config.json .*bitnet format: it has no quantization_config",
    ),
    "other quantization": (quantization(quant_method="fp8"), "config.json .*bitnet format: .*fp8"),
    "unknown linear_class": (quantization(linear_class="trilinear"), "config.json.*trilinear"),
    "unknown mode": (quantization(quantization_mode="later"), "config.json.*later"),
    "kept modules no list": (quantization(modules_to_not_convert=3), "modules_to_not_convert"),
    "everything is kept": (quantization(modules_to_not_convert=["model"]), "no ternary layer"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_damage_is_named(folder: Path, kind: str) -> None:
    damage, message = DAMAGES[kind]
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        check(folder)
    assert "\n" not in str(caught.value)
    for read in (read_checkpoint, load_reference):
        with pytest.raises(CheckpointError, match=message):
            read(folder)


def test_damaged_masters_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "online", "llama", seed=1, mode="online")
    tensor(Q, with_nan(128, 128))(tmp_path / "online")
    with pytest.raises(CheckpointError, match=f"{Q} .*NaN"):
        pack_checkpoint(tmp_path / "online", tmp_path / "packed")
    tensor(Q, torch.zeros(32, 128).byte())(tmp_path / "online")
    with pytest.raises(CheckpointError, match=f"{Q} .*dtype U8"):
        pack_checkpoint(tmp_path / "online", tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["online"]


def test_the_command_raises_the_error_for_main_to_print(folder: Path) -> None:
    content(lambda old: old[:-40])(folder)
    result = CliRunner().invoke(app, ["inspect", str(folder)])
    assert isinstance(result.exception, CheckpointError)
    assert result.stdout == ""
