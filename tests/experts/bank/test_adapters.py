"""The folders of a bank: what an expert must share with the others, and what vLLM reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from experts.vllm_plugin.bank.adapters import (
    BankError,
    expert_path,
    make_adapter,
    make_base,
    why_unlike,
)


def checkpoint(folder: Path, **changes: Any) -> Path:
    """A folder with all of a checkpoint that is looked at here."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"},
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_the_base_has_the_configuration_and_the_tokenizer(tmp_path: Path) -> None:
    make_base(checkpoint(tmp_path / "one"), tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    assert config["architectures"] == ["BankLlamaForCausalLM"]
    assert config["hidden_size"] == 64
    assert sorted(p.name for p in (tmp_path / "base").iterdir()) == [
        "config.json",
        "tokenizer.json",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"architectures": None}, "None"),
        ({"quantization_config": {}}, "not ternary"),
    ],
)
def test_what_no_bank_serves_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BankError, match=message):
        make_base(checkpoint(tmp_path / "one", **changes), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BankError, match=r"config\.json"):
        make_base(tmp_path, tmp_path / "base")


def test_likeness(tmp_path: Path) -> None:
    make_base(checkpoint(tmp_path / "one"), tmp_path / "base")
    like = checkpoint(tmp_path / "like", _name_or_path="elsewhere", dtype="float32")
    assert why_unlike(like, tmp_path / "base") is None
    wider = checkpoint(tmp_path / "wider", hidden_size=128)
    assert why_unlike(wider, tmp_path / "base") == "its hidden_size is 128, the bank's 64"
    (like / "tokenizer.json").write_text('{"other": 1}')
    assert why_unlike(like, tmp_path / "base") == "its tokenizer.json is not the bank's"


def test_what_ends_an_answer_is_the_same_for_a_whole_bank(tmp_path: Path) -> None:
    one, base = checkpoint(tmp_path / "one", eos_token_id=1), tmp_path / "base"
    make_base(one, base)
    like = checkpoint(tmp_path / "like", eos_token_id=1)
    file = like / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": 1, "pad_token_id": 0, "transformers_version": "5"}))
    assert why_unlike(like, base) is None
    for other in ({"eos_token_id": [1, 2]}, {"eos_token_id": 1, "temperature": 0.2}):
        file.write_text(json.dumps(other))
        assert why_unlike(like, base) == "its generation_config.json is not the bank's"
    file.write_text("{")
    with pytest.raises(BankError, match=r"generation_config\.json cannot be read"):
        why_unlike(like, base)


def test_an_adapter_names_its_expert(tmp_path: Path) -> None:
    expert = checkpoint(tmp_path / "expért")
    make_adapter(expert, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    lora_a = tensors["base_model.model.expert_selector.lora_A.weight"]
    assert expert_path(lora_a.bfloat16()) == expert.absolute()
    assert expert_path(torch.zeros(8, 1)) is None
