"""Tiny models of every architecture, with the starters' tokenizer, and tiny chat data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from experts.starter.tokenizer import VOCAB_SIZE, save_tokenizer
from experts.training.models import MODEL_TYPES

QUESTIONS = {"2+2": "It is 4.", "Who?": "Ada.", "Say yes": "yes", "sky": "The sky is blue."}


def tiny_config(kind: str, **changes: Any) -> Any:
    sizes = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "tie_word_embeddings": kind != "mistral",
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    return AutoConfig.for_model(kind, **{**sizes, **changes})


def write_model(folder: Path, kind: str = "llama", seed: int = 0, **changes: Any) -> Path:
    """A full-precision checkpoint with a tokenizer."""
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(tiny_config(kind, **changes)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def write_data(file: Path, pairs: dict[str, str], repeat: int = 1) -> Path:
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ]
            }
        )
        for question, answer in pairs.items()
    ]
    file.write_text("\n".join(lines * repeat) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session", params=MODEL_TYPES)
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.jsonl", QUESTIONS)


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """Writes raw lines into a data file."""

    def write(*content: str) -> Path:
        file = tmp_path / "lines.jsonl"
        file.write_text("\n".join(content) + "\n", encoding="utf-8")
        return file

    return write
