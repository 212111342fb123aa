"""Hidden states of the frozen meta LLM where an answer begins and along it, cached on disk.

The running meta worker encodes: an ordinary request, captured by the gate, shares the engine's
batch with users' requests and needs no second copy of the model.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from router.head import Floats
from router.meta_client import MetaClient, MetaInfo, Written

CONCURRENCY = 32
"""Requests in flight while encoding; fills the engine's batch and leaves room for users."""

Messages = list[dict[str, str]]


class Encoder:
    """Encodes prompts with one meta worker; what it saw before comes from the cache."""

    def __init__(self, client: MetaClient, info: MetaInfo, cache: Path) -> None:
        """`cache` is a folder; entries are keyed by the checkpoint's fingerprint and the text."""
        self._client = client
        self._cache = cache / info.fingerprint
        self.hidden_size, self.fingerprint = info.hidden_size, info.fingerprint

    async def encode(
        self,
        prompts: Sequence[Messages],
        tokens: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Written]:
        """For each prompt what the meta writes, up to `tokens` tokens, with hidden states.

        `progress` is called with the number of prompts done. Raises MetaError.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        limit, done = asyncio.Semaphore(CONCURRENCY), 0

        async def one(prompt: Messages) -> Written:
            nonlocal done
            path = self._cache / f"{_key(prompt, tokens)}.npz"
            written = _load(path, self.hidden_size)
            if written is None:
                async with limit:
                    written = await self._client.write(prompt, tokens)
                _save(path, written)
            done += 1
            progress(done)
            return written

        return list(await asyncio.gather(*(one(prompt) for prompt in prompts)))

    async def states(
        self, prompts: Sequence[Messages], progress: Callable[[int], None] = lambda done: None
    ) -> Floats:
        """`[len(prompts), features]` where each prompt's next token would be. Raises MetaError."""
        written = await self.encode(prompts, 1, progress)
        empty = np.empty((0, self.hidden_size), np.float32)
        return np.concatenate([empty, *(w.states[:1] for w in written)])


def _key(prompt: Messages, tokens: int) -> str:
    text = json.dumps([prompt, tokens], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _load(path: Path, features: int) -> Written | None:
    """None for what is not there, or is not whole: it is encoded again."""
    try:
        with np.load(path, allow_pickle=False) as data:
            tokens, states = tuple(map(str, data["tokens"])), data["states"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return Written(tokens, states) if states.shape == (len(tokens), features) else None


def _save(path: Path, written: Written) -> None:
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.npz")
    np.savez(staging, tokens=np.array(written.tokens, dtype=np.str_), states=written.states)
    os.replace(staging, path)
