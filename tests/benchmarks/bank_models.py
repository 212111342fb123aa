"""The experts of the bank's benchmark: random, of one architecture, with one tokenizer."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.benchmarks.random_model import SIZES, write_model

TABLE = "model-00000.safetensors"
"""The file with the embedding, which is the head as well in a tied model."""


def write_experts(size: str, folder: Path, count: int, shared: bool) -> list[Path]:
    """The folders of `count` ternary experts in `folder`; those not there yet are written.

    `shared`: all have the same embedding, as fine-tunes whose embedding was frozen, and lie on
    the disk with one copy of it where the model is tied; otherwise they differ in everything.
    """
    experts = [folder / f"e{number}" for number in range(count)]
    for number, expert in enumerate(experts):
        if expert.exists():
            continue
        write_model(SIZES[size], "ternary", expert, seed=number, table_seed=0 if shared else number)
        if shared and number:
            (expert / TABLE).unlink()
            os.link(experts[0] / TABLE, expert / TABLE)
        write_tokenizer(expert, SIZES[size].model.vocabulary)
    return experts


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """One word for each id: the servers need a tokenizer that turns any id into text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = {"<unk>": 0, "<s>": 1, "</s>": 2}
    words |= {f"w{number}": number for number in range(3, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##")  # a space between two words
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
