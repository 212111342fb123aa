"""A checkpoint is the same whichever version of a library wrote its files, and no other one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from router.fingerprint import fingerprint

CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 4, "rms_norm_eps": 1e-5}
OLD_CONFIG = {**CONFIG, "rope_theta": 1e5, "torch_dtype": "bfloat16", "transformers_version": "4"}
NEW_CONFIG = {
    **CONFIG,
    "dtype": "bfloat16",
    "rope_parameters": {"rope_theta": 1e5, "rope_type": "default"},
    "transformers_version": "5.19.0",
    "_name_or_path": "here",
}
MODEL = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
TOKENIZER: dict[str, Any] = {"version": "1.0", "model": MODEL, "added_tokens": []}
NEW_MODEL = {**MODEL, "merges": [["a", "b"]], "ignore_merges": False}


def folder(path: Path, **files: Any) -> Path:
    """A checkpoint, some of its JSON files replaced."""
    path.mkdir()
    content = {"config": OLD_CONFIG, "tokenizer": TOKENIZER, "tokenizer_config": {}} | files
    for name, value in content.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    (path / "chat_template.jinja").write_text("{{ messages }}")
    save_file({"model.norm.weight": torch.ones(4)}, path / "model.safetensors")
    return path


def test_what_another_version_of_a_library_writes_is_the_same_checkpoint(tmp_path: Path) -> None:
    new = folder(
        tmp_path / "new",
        config=NEW_CONFIG,
        tokenizer={**TOKENIZER, "version": "2.0", "model": NEW_MODEL},
        tokenizer_config={"is_local": True},
    )
    weights = {"model.norm.weight": torch.ones(4)}
    save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(new) == fingerprint(folder(tmp_path / "old"))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "chat_template.jinja").write_text("{{ other }}"),
        lambda path: (path / "config.json").write_text(json.dumps({**OLD_CONFIG, "rope_theta": 1})),
        lambda path: (path / "tokenizer.json").write_text(
            json.dumps({**TOKENIZER, "model": {**MODEL, "vocab": {"a": 0, "b": 2, "ab": 1}}})
        ),
        lambda path: save_file({"model.norm.weight": torch.zeros(4)}, path / "model.safetensors"),
        lambda path: save_file({"model.norm": torch.ones(4)}, path / "model.safetensors"),
    ],
)
def test_another_template_rope_vocabulary_or_weight_is_another_checkpoint(
    tmp_path: Path, change: Callable[[Path], Any]
) -> None:
    path = folder(tmp_path / "changed")
    change(path)
    assert fingerprint(path) != fingerprint(folder(tmp_path / "as it was"))


def test_a_late_tensor_counts_where_the_first_one_is_shared(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a"), folder(tmp_path / "b")
    embedding = torch.ones(1 << 20)
    for path, value in ((a, 0.0), (b, 1.0)):
        layer = torch.full((1 << 18,), value)
        save_file({"a.embedding": embedding, "b.layer": layer}, path / "model.safetensors")
    assert fingerprint(a) != fingerprint(b)


def test_files_that_are_no_json_are_somebody_elses_error(tmp_path: Path) -> None:
    path = folder(tmp_path / "broken")
    (path / "config.json").write_text("{")
    (path / "model.safetensors").write_bytes(b"no weights")
    assert len(fingerprint(path)) == 16
