"""Packing and unpacking checkpoints: the same bytes again, the same logits, little memory."""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig
from typer.testing import CliRunner

from experts.checkpoint import (
    WEIGHTS_FILE,
    CheckpointError,
    TernaryWeight,
    check,
    load_reference,
    pack_checkpoint,
    read_checkpoint,
    unpack_checkpoint,
)
from experts.checkpoint.converting import masters
from experts.cli import app
from experts.ternary import ternarize
from tests.experts.bitnet_checkpoints import ARCHITECTURES, make
from tests.experts.test_checkpoint import logits

INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"):
        yield


@given(
    st.integers(1, 40),
    st.integers(3, 70),
    st.floats(0.02, 1.0),
    st.floats(math.log(2e-5), math.log(100.0)).map(math.exp),
    st.integers(0, 10_000),
)
@example(1, 3, 1.0, 0.3, 0)
@settings(deadline=None, max_examples=200)
def test_masters_quantize_to_what_they_were_made_of(
    rows: int, columns: int, density: float, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (rows, columns), generator=generator) * 2 - 1
    values = (signs * (torch.rand(rows, columns, generator=generator) < density)).to(torch.int8)
    assume(int(values.count_nonzero()) not in (1, 2))
    gamma = torch.tensor(scale).bfloat16().float()
    master = masters(TernaryWeight(values, gamma))
    assert master.dtype == torch.bfloat16
    again, gamma_again = ternarize(master)
    assert torch.equal(again, values)
    if values.any():
        assert gamma_again.bfloat16().float() == gamma
        inverse = (1 / gamma).bfloat16()
        assert (1 / masters_gamma(values, 1 / inverse.float())).bfloat16() == inverse


def masters_gamma(values: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    return ternarize(masters(TernaryWeight(values, gamma)))[1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
def test_packed_to_online_and_back_is_the_same_file(
    tmp_path: Path, architecture: str, linear_class: Any
) -> None:
    tie = architecture in ("llama", "bitnet")
    make(tmp_path / "a", architecture, linear_class=linear_class, use_rms_norm=not tie, tie=tie)
    unpack_checkpoint(tmp_path / "a", tmp_path / "online")
    pack_checkpoint(tmp_path / "online", tmp_path / "b")
    a, b = ((tmp_path / name / WEIGHTS_FILE).read_bytes() for name in ("a", "b"))
    assert a == b
    before, after = (json.loads((tmp_path / n / "config.json").read_text()) for n in ("a", "b"))
    assert before == after
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == names
    assert "tokenizer.json" in names


@pytest.mark.parametrize("architecture", ["qwen2", "bitnet"])
@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
def test_transformers_computes_the_same_online(
    tmp_path: Path, architecture: str, linear_class: Any
) -> None:
    make(tmp_path / "packed", architecture, linear_class=linear_class, use_rms_norm=True)
    unpack_checkpoint(tmp_path / "packed", tmp_path / "online")
    packed, online = (
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32))
        for name in ("packed", "online")
    )
    assert (packed - online).square().mean().sqrt() < 0.01 * packed.std()


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_online_masters_are_packed(tmp_path: Path, architecture: str) -> None:
    make(tmp_path / "online", architecture, mode="online", use_rms_norm=True)
    pack_checkpoint(tmp_path / "online", tmp_path / "packed")
    source = load_file(tmp_path / "online" / WEIGHTS_FILE)
    packed = read_checkpoint(tmp_path / "packed")
    for name, layer in packed.layers.items():
        values, gamma = ternarize(source[f"{name}.weight"])
        assert torch.equal(layer.values, values)
        assert abs(layer.gamma / gamma - 1) < 2**-7
    for name, tensor in packed.tensors.items():
        assert torch.equal(tensor, source[name])
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "packed", dtype=torch.float32)
    expected, ours = logits(theirs), logits(load_reference(tmp_path / "packed"))
    assert (ours - expected).square().mean().sqrt() < 0.01 * expected.std()
    unrounded = logits(load_reference(tmp_path / "online"))
    assert (ours - unrounded).square().mean().sqrt() < 0.1 * expected.std()


def test_a_plain_checkpoint_is_packed(tmp_path: Path) -> None:
    """What a trainer writes: full precision, no word about quantization."""
    make(tmp_path / "plain", "llama", mode="online")
    file = tmp_path / "plain" / "config.json"
    config = json.loads(file.read_text())
    del config["quantization_config"]
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no quantization_config"):
        check(tmp_path / "plain")
    pack_checkpoint(tmp_path / "plain", tmp_path / "packed")
    packed = json.loads((tmp_path / "packed" / "config.json").read_text())
    assert packed["quantization_config"]["modules_to_not_convert"] == ["lm_head"]
    assert len(read_checkpoint(tmp_path / "packed").layers) == 14


def test_large_targets_are_sharded(tmp_path: Path) -> None:
    make(tmp_path / "packed", "llama")
    unpack_checkpoint(tmp_path / "packed", tmp_path / "online", shard_bytes=100_000)
    places = json.loads((tmp_path / "online" / INDEX).read_text())["weight_map"]
    files = sorted((tmp_path / "online").glob("*.safetensors"))
    assert {file.name for file in files} == set(places.values())
    assert all(re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", file.name) for file in files)
    shards = [load_file(file) for file in files]
    assert len(shards) > 3
    for shard in shards:
        assert len(shard) == 1 or sum(tensor.nbytes for tensor in shard.values()) <= 100_000
    pack_checkpoint(tmp_path / "online", tmp_path / "again")
    a, b = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("packed", "again"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    make(tmp_path / "packed", "llama")
    make(tmp_path / "online", "llama", mode="online")
    with pytest.raises(CheckpointError, match="packed already"):
        pack_checkpoint(tmp_path / "packed", tmp_path / "new")
    with pytest.raises(CheckpointError, match="not packed"):
        unpack_checkpoint(tmp_path / "online", tmp_path / "new")
    with pytest.raises(CheckpointError, match="exists already"):
        pack_checkpoint(tmp_path / "online", tmp_path / "packed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["online", "packed"]


def test_commands(tmp_path: Path) -> None:
    make(tmp_path / "packed", "llama")
    folders = [str(tmp_path / name) for name in ("packed", "online", "again")]
    for command, source, target in (("unpack", *folders[:2]), ("pack", *folders[1:])):
        result = CliRunner().invoke(app, [command, source, target])
        assert result.exit_code == 0, result.output
        assert re.search(r"MB of weights, from [\d.]+ MB", result.stdout)
    check(tmp_path / "again")


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    make(tmp_path / "packed", "llama")
    target = tmp_path / "packed" / "config.json" / "online"
    result = CliRunner().invoke(app, ["unpack", str(tmp_path / "packed"), str(target)])
    assert isinstance(result.exception, CheckpointError)
    assert "cannot be written" in str(result.exception)


def test_memory_is_bounded_by_a_tensor_and_a_shard(tmp_path: Path) -> None:
    """What torch holds between two pieces, while 5 MB are packed in shards of 100 kB."""
    write_deep(tmp_path / "online", blocks=24)
    live: list[int] = []

    def measure(done: int, total: int) -> None:
        if len(live) < done * 6 // total:
            live.append(tensor_bytes() - before)

    before = tensor_bytes()
    pack_checkpoint(tmp_path / "online", tmp_path / "packed", shard_bytes=100_000, report=measure)
    size = sum(file.stat().st_size for file in (tmp_path / "online").glob("*.safetensors"))
    largest = 128 * 192 * 2
    assert size > 5_000_000
    assert len(live) >= 5
    assert max(live) <= 100_000 + 2 * largest


def tensor_bytes() -> int:
    """Bytes of all tensors that live, shared memory once."""
    tensors = [x for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter)]
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in tensors
        if tensor.device.type == "cpu"
    }
    return sum(storages.values())


def write_deep(folder: Path, blocks: int) -> None:
    """A plain checkpoint in many shards."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="500KB")
