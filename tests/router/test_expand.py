"""Expanding a checkpoint: new vocabulary entries, linked shards, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from router.expand import ExpandError, expand
from router.fingerprint import fingerprint

WORDS = {"a": 0, "b.": 1, "c": 2}


def checkpoint(
    folder: Path, *, vocab_size: int = 3, architecture: str = "LlamaForCausalLM"
) -> Path:
    """A tiny two-shard checkpoint: the embedding in one shard, a layer in the other."""
    folder.mkdir()
    config = {"architectures": [architecture], "vocab_size": vocab_size, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config))
    Tokenizer(models.WordLevel(WORDS, unk_token="a")).save(str(folder / "tokenizer.json"))
    embedding = torch.arange(vocab_size * 4, dtype=torch.bfloat16).reshape(vocab_size, 4)
    save_file({"model.embed_tokens.weight": embedding}, folder / "model-1.safetensors")
    save_file({"model.norm.weight": torch.ones(4)}, folder / "model-2.safetensors")
    return folder


def test_vocabulary_embedding_and_configuration_grow(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    target = expand(source, tmp_path / "target", slots=2)
    config = json.loads((target / "config.json").read_text())
    assert config["architectures"] == ["ExpertTokenLlamaForCausalLM"]
    assert config["vocab_size"] == 5
    assert config["expert_tokens"] == {
        "first_id": 3,
        "slots": 2,
        "fingerprint": fingerprint(source),
        "layers": [],
        "sentence_end_ids": [1],
        "end_of_turn_ids": [2],
    }
    embedding = load_file(target / "model-1.safetensors")["model.embed_tokens.weight"]
    before = load_file(source / "model-1.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(embedding[:3], before)
    assert not embedding[3:].any()
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    assert [tokenizer.token_to_id(f"<|expert_{i}|>") for i in range(2)] == [3, 4]


def test_an_unchanged_shard_is_linked(tmp_path: Path) -> None:
    target = expand(checkpoint(tmp_path / "source"), tmp_path / "target", slots=2)
    assert (target / "model-2.safetensors").samefile(tmp_path / "source" / "model-2.safetensors")


def test_a_vocabulary_padded_beyond_its_tokenizer_keeps_ids_contiguous(tmp_path: Path) -> None:
    target = expand(checkpoint(tmp_path / "source", vocab_size=6), tmp_path / "target", slots=1)
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    assert tokenizer.token_to_id("<|expert_0|>") == 6
    assert tokenizer.get_vocab_size() == 7


def test_ids_that_the_model_has_no_rows_for_are_refused(tmp_path: Path) -> None:
    """Otherwise the expert tokens' names had other ids than their rows."""
    source = checkpoint(tmp_path / "source")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.add_special_tokens(["<pad>"])
    tokenizer.save(str(source / "tokenizer.json"))
    with pytest.raises(ExpandError, match="a token with the id 3, and the model only 3 rows"):
        expand(source, tmp_path / "target", slots=2)


def test_a_unigram_tokenizer_is_expanded_too(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    pieces = [("<unk>", 0.0), ("a", -1.0), ("b", -2.0)]
    Tokenizer(models.Unigram(pieces, unk_id=0)).save(str(source / "tokenizer.json"))
    target = expand(source, tmp_path / "target", slots=1)
    assert Tokenizer.from_file(str(target / "tokenizer.json")).token_to_id("<|expert_0|>") == 3


def test_what_ends_an_answer_is_what_both_configurations_say(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    config = json.loads((expand(source, tmp_path / "target", 1) / "config.json").read_text())
    assert config["expert_tokens"]["end_of_turn_ids"] == [2, 1]


def test_another_checkpoint_has_another_fingerprint(tmp_path: Path) -> None:
    a, b = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b")
    assert fingerprint(a) == fingerprint(b)
    save_file({"model.norm.weight": torch.zeros(4)}, b / "model-2.safetensors")
    assert fingerprint(a) != fingerprint(b)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "generation_config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda f: [p.unlink() for p in f.glob("*.safetensors")], "no .safetensors"),
        (lambda f: (f / "model-1.safetensors").unlink(), "no tensor named model.embed_tokens"),
    ],
)
def test_a_bad_checkpoint_is_refused_and_leaves_nothing(tmp_path: Path, spoil, message) -> None:  # type: ignore[no-untyped-def]
    source = checkpoint(tmp_path / "source")
    spoil(source)
    with pytest.raises(ExpandError, match=message):
        expand(source, tmp_path / "target", slots=2)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_unsupported_architectures_and_second_expansions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpandError, match="supported: Llama"):
        expand(checkpoint(tmp_path / "a", architecture="GPT2LMHeadModel"), tmp_path / "t", 2)
    target = expand(checkpoint(tmp_path / "b"), tmp_path / "t", slots=2)
    with pytest.raises(ExpandError, match=r"ExpertTokenLlama|already"):
        expand(target, tmp_path / "u", slots=2)
