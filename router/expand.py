"""Reserve expert tokens in a checkpoint: a servable copy with K more vocabulary entries.

Unchanged weight shards are hard-linked (copied where the file system cannot link); only the
shards that hold the embedding or an untied lm_head are written anew, with K zero rows.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer

from router.features import feature_layout
from router.fingerprint import fingerprint
from router.sentences import ends_sentence
from router.vocabulary import DEFAULT_SLOTS, expert_token

SUPPORTED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
GROWN = ("model.embed_tokens.weight", "lm_head.weight")
"""Tensors with one row per vocabulary entry, `[vocabulary, hidden]`."""

_COPIED = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)


class ExpandError(ValueError):
    """The checkpoint cannot be expanded; the message says why and what to do."""


def expand(source: Path, target: Path, slots: int = DEFAULT_SLOTS) -> Path:
    """Write an expanded copy of the checkpoint folder `source` to `target` and return it.

    `target` appears complete or not at all. Its config.json carries what the gate needs, under
    `expert_tokens`: first_id, slots, fingerprint, the layers that the head reads, and the ids of
    tokens that end a sentence or the turn. Raises ExpandError for a checkpoint that is
    not a supported safetensors checkpoint with a fast tokenizer.
    """
    config = _read_config(source)
    first_id = int(config["vocab_size"])
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    staging.mkdir(parents=True)
    try:
        _write_weights(source, staging, first_id, slots)
        _write_tokenizer(source, staging, first_id, slots)
        layout = {
            "first_id": first_id,
            "slots": slots,
            "fingerprint": fingerprint(source),
            **feature_layout(config),
            "sentence_end_ids": _sentence_end_ids(staging / "tokenizer.json", first_id),
            "end_of_turn_ids": _end_of_turn_ids(source, config),
        }
        _write_config(config, staging, layout)
        for name in _COPIED:
            if (source / name).exists():
                shutil.copyfile(source / name, staging / name)
        if target.exists():
            shutil.rmtree(target)
        os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExpandError(f"{file} is not JSON: {error}") from None
    return found


def _read_config(source: Path) -> dict[str, Any]:
    if not (source / "config.json").exists():
        raise ExpandError(f"{source} is not a checkpoint folder: it has no config.json")
    config = _read_json(source / "config.json")
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in SUPPORTED:
        raise ExpandError(
            f"the meta LLM's architecture is {architecture}; supported: {', '.join(SUPPORTED)}"
        )
    if "expert_tokens" in config:
        raise ExpandError(f"{source} has expert tokens already; expand the original checkpoint")
    return config


def _write_weights(source: Path, staging: Path, first_id: int, slots: int) -> None:
    shards = sorted(source.glob("*.safetensors"))
    if not shards:
        raise ExpandError(f"{source} holds no .safetensors weights (pickled ones are refused)")
    grown = set()
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            names = [name for name in GROWN if name in file.keys()]  # noqa: SIM118
        if names:
            _grow_shard(shard, staging / shard.name, names, first_id, slots)
            grown.update(names)
        else:
            _link(shard, staging / shard.name)
    if GROWN[0] not in grown:
        raise ExpandError(f"{source} holds no tensor named {GROWN[0]}")
    index = source / "model.safetensors.index.json"
    if index.exists():
        shutil.copyfile(index, staging / index.name)


def _grow_shard(shard: Path, target: Path, names: list[str], first_id: int, slots: int) -> None:
    with safe_open(shard, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name in names:
        weight = tensors[name]
        if weight.shape[0] != first_id:
            raise ExpandError(
                f"{shard.name}: {name} has {weight.shape[0]} rows but config.json says"
                f" vocab_size {first_id}"
            )
        rows = torch.zeros(slots, weight.shape[1], dtype=weight.dtype)
        tensors[name] = torch.cat([weight, rows])
    save_file(tensors, target, metadata=metadata or {"format": "pt"})


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _write_tokenizer(source: Path, staging: Path, first_id: int, slots: int) -> None:
    path = source / "tokenizer.json"
    if not path.exists():
        raise ExpandError(f"{source} has no tokenizer.json; save it with a fast tokenizer first")
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    added = tokenizer.setdefault("added_tokens", [])
    vocabulary = tokenizer["model"]["vocab"]
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    known = [*ids, *(token["id"] for token in added)]
    if max(known) >= first_id:
        raise ExpandError(
            f"the tokenizer of {source} has a token with the id {max(known)}, and the model only"
            f" {first_id} rows in its vocabulary: resize its embeddings to the tokenizer, save it"
            " again, and take that"
        )
    # Ids must be contiguous; a vocabulary padded beyond its tokenizer gets filler names.
    for token_id in range(max(known) + 1, first_id):
        added.append(_special(token_id, f"<|unused_{token_id}|>"))
    for slot in range(slots):
        added.append(_special(first_id + slot, expert_token(slot)))
    (staging / path.name).write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _special(token_id: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": content, **flags, "special": True}


def _sentence_end_ids(tokenizer_file: Path, first_id: int) -> list[int]:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    return [i for i in range(first_id) if ends_sentence(tokenizer.decode([i]))]


def _end_of_turn_ids(source: Path, config: dict[str, Any]) -> list[int]:
    """What ends an answer by config.json or generation_config.json, as vLLM takes it."""
    found: dict[int, None] = {}
    file = source / "generation_config.json"
    for said in (config, _read_json(file) if file.exists() else {}):
        ids = said.get("eos_token_id")
        found |= dict.fromkeys([] if ids is None else ids if isinstance(ids, list) else [ids])
    return list(found)


def _write_config(config: dict[str, Any], staging: Path, layout: dict[str, Any]) -> None:
    expanded = dict(config)
    expanded["architectures"] = [f"ExpertToken{config['architectures'][0]}"]
    expanded["vocab_size"] = layout["first_id"] + layout["slots"]
    expanded["expert_tokens"] = layout
    text = json.dumps(expanded, ensure_ascii=False)
    (staging / "config.json").write_text(text + "\n", encoding="utf-8")
