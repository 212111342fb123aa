"""What a checkpoint is, whichever version of a library wrote its files. No torch.

Rows, cached states and the states that Trivium ships belong to one meta LLM. Its files are written
anew on every machine (the default is converted at the first start), and libraries add fields to
them as they please; so what counts is hashed, not the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SAMPLES, SAMPLE = 64, 16 << 10
"""How many places of each weight file are looked at, evenly spaced, and bytes of each: a fine-tuned
checkpoint may share its first tensor, the embedding, with the one that it comes from."""
_CONFIG = (
    "architectures",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "sliding_window",
    "tie_word_embeddings",
    "vocab_size",
)
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters")
_TOKENIZER = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def fingerprint(source: Path) -> str:
    """16 hex digits that tell one checkpoint folder from another.

    Hashes the architecture, the tokenizer's vocabulary and steps, the chat template, and of each
    weight file the tensors' names and shapes and samples of the data: milliseconds for 70B weights.
    """
    digest = hashlib.sha256()
    for part in (_config(source), _tokenizer(source), _chat_template(source)):
        digest.update(_canonical(part))
    for path in sorted(source.glob("*.safetensors")):
        digest.update(path.name.encode())
        digest.update(_weights(path))
    return digest.hexdigest()[:16]


def _weights(path: Path) -> bytes:
    """The tensors of a safetensors file, and samples of their data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(min(size, int.from_bytes(file.read(8), "little")))
        start = file.tell()
        found = [_canonical(_tensors(header))]
        for number in range(SAMPLES):
            file.seek(start + number * max(0, size - start - SAMPLE) // (SAMPLES - 1))
            found.append(file.read(SAMPLE))
    return b"".join(found)


def _tensors(header: bytes) -> dict[str, Any]:
    """Names, shapes and places in a safetensors file, without its metadata."""
    return {k: v for k, v in _parsed(header).items() if k != "__metadata__"}


def _config(source: Path) -> dict[str, Any]:
    """What of the configuration changes what the same weights compute."""
    config = _read(source / "config.json")
    rope: dict[str, Any] = {}
    for name in _ROPE:
        value = config.get(name)
        rope |= value if isinstance(value, Mapping) else {name: value}
    kept = {name: config[name] for name in _CONFIG if config.get(name) is not None}
    return kept | {k: v for k, v in rope.items() if v not in (None, "default")}


def _tokenizer(source: Path) -> dict[str, Any]:
    content = _read(source / "tokenizer.json")
    model = content.get("model") or {}
    merges = [m if isinstance(m, str) else " ".join(m) for m in model.get("merges") or ()]
    added = [(token["id"], token["content"]) for token in content.get("added_tokens") or ()]
    steps = {name: content.get(name) for name in _TOKENIZER}
    return {"vocab": model.get("vocab"), "merges": merges, "added": sorted(added), **steps}


def _chat_template(source: Path) -> Any:
    path = source / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    return _read(source / "tokenizer_config.json").get("chat_template")


def _read(path: Path) -> dict[str, Any]:
    """The JSON in a file; nothing where there is no file."""
    return _parsed(path.read_bytes()) if path.exists() else {}


def _parsed(text: bytes) -> dict[str, Any]:
    """The JSON object; nothing where it is none: who needs it says so."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
