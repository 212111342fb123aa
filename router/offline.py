"""Features of prompts with transformers, in a job process, cached on disk. Imports torch."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from router.encode import Messages
from router.features import Features
from router.fingerprint import fingerprint
from router.head import Floats

BATCH_TOKENS = 2048
"""Padded tokens in a batch; prompts of like length share one."""


class OfflineError(RuntimeError):
    """The meta LLM cannot encode; the message says why."""


class OfflineEncoder:
    """The frozen meta LLM in `folder`, original or expanded; loaded when a prompt is new."""

    def __init__(self, folder: Path, cache: Path) -> None:
        """Raises OfflineError if `folder` holds no checkpoint. `cache` is made if need be."""
        self._folder = folder
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise OfflineError(f"{folder} is not a checkpoint folder: {error}") from None
        layout = config.get("expert_tokens") or {"fingerprint": fingerprint(folder)}
        self.features = Features.of(config)
        self.fingerprint = self.features.fingerprint(layout["fingerprint"])
        self.size = self.features.size
        self._cache = cache / f"{self.fingerprint}-offline"
        self._first_id = int(layout.get("first_id", config["vocab_size"]))
        self._model: Any = None
        self._tokenizer: Any = None

    def encode(
        self,
        prompts: Sequence[Messages],
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> Floats:
        """Features `[n, size]` where the answers to `prompts` begin.

        `progress` gets how many of the new ones are done, and how many there are.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        paths = [self._cache / f"{_key(prompt)}.npy" for prompt in prompts]
        new = {path: prompt for path, prompt in zip(paths, prompts, strict=True) if not _ok(path)}
        if new:
            self._load()
        done = 0
        for batch in self._batches(list(new.items())):
            for (path, _), features in zip(batch, self._encode(batch), strict=True):
                _save(path, features)
            done += len(batch)
            progress(done, len(new))
        found = [np.load(path, allow_pickle=False) for path in paths]
        return np.stack(found) if found else np.empty((0, self.size), np.float32)

    def words(self) -> Floats:
        """The ordinary words' rows of the lm_head `[vocabulary, hidden]`, float32."""
        self._load()
        rows = self._model.get_output_embeddings().weight.detach().float().cpu().numpy()
        words: Floats = rows[: self._first_id]
        return words

    def _load(self) -> None:
        if self._model is not None:
            return
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self._tokenizer = AutoTokenizer.from_pretrained(self._folder, trust_remote_code=False)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # A CPU computes float32 faster than bfloat16; the features are the same to 1 %.
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        model = AutoModelForCausalLM.from_pretrained(
            self._folder, dtype=dtype, trust_remote_code=False
        )
        self._model = model.to(device).eval()

    def _ids(self, prompt: Messages) -> list[int]:
        inside = prompt[-1]["role"] == "assistant"
        text = self._tokenizer.apply_chat_template(
            prompt,
            tokenize=False,
            add_generation_prompt=not inside,
            continue_final_message=inside,
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _batches(
        self, items: list[tuple[Path, Messages]]
    ) -> Iterator[list[tuple[Path, list[int]]]]:
        """Items with token ids, in batches of like length."""
        encoded = sorted(
            ((path, self._ids(prompt)) for path, prompt in items), key=lambda item: len(item[1])
        )
        batch: list[tuple[Path, list[int]]] = []
        for item in encoded:
            if batch and (len(batch) + 1) * len(item[1]) > BATCH_TOKENS:
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    @torch.inference_mode()
    def _encode(self, batch: list[tuple[Path, list[int]]]) -> Floats:
        """`[len(batch), size]`. Padded on the right: causal attention never sees it."""
        device = self._model.device
        last = [len(ids) - 1 for _, ids in batch]
        tokens = torch.zeros(len(batch), max(last) + 1, dtype=torch.long)
        for row, (_, ids) in enumerate(batch):
            tokens[row, : len(ids)] = torch.tensor(ids)
        rows, layers = torch.arange(len(batch)), self._model.model.layers
        seen: dict[int, torch.Tensor] = {}

        def keep(module: Any, given: Any, output: Any) -> None:
            seen[id(module)] = (output[0] if isinstance(output, tuple) else output)[rows, last]

        early = [layers[number - 1] for number in self.features.layers]
        hooks = [layer.register_forward_hook(keep) for layer in early]
        try:
            states = self._model.model(tokens.to(device), use_cache=False).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        parts = [states[rows, last], *(seen[id(layer)] for layer in early)]
        features: Floats = torch.cat([part.float().cpu() for part in parts], dim=-1).numpy()
        return features


def _key(prompt: Messages) -> str:
    text = json.dumps(prompt, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _ok(path: Path) -> bool:
    """Whether an entry can be read; a damaged one is encoded again."""
    try:
        np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


def _save(path: Path, features: Floats) -> None:
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.npy")
    np.save(staging, features)
    os.replace(staging, path)
