"""Training of a ternary expert: examples to batches, the loop, checkpoints that survive a kill.

The model is a plain transformers causal LM whose linear layers are `BitLinear`. A run is the
same for the same seed, device and number of steps, also if it was killed and resumed.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from experts.bitlinear import set_strength

IGNORED = -100
LENGTH_STEP = 16
"""Rows are padded to a multiple of this, which keeps the number of shapes small."""


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True)
class Example:
    """A conversation, the answer's beginning (may be empty) and the text that must follow it."""

    turns: tuple[Turn, ...]
    prefix: str
    target: str


@dataclass(frozen=True)
class Encoded:
    """Token ids of an example; those from `start` on are learned."""

    ids: list[int]
    start: int


@dataclass(frozen=True)
class Batch:
    """`ids` int64 `[rows, length]`, right-padded; `labels` likewise, -100 where nothing is
    learned (`labels[:, t]` is the token at t)."""

    ids: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Settings:
    """How to train. Exactly one of `steps` and `minutes` ends the run and spans the schedule."""

    folder: Path
    """Where `state.pt` and `log.jsonl` are kept."""
    steps: int | None = None
    minutes: float | None = None
    batch_tokens: int = 4096
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    learning_warmup: int = 100
    """Steps over which the learning rate rises."""
    quantization_warmup: float = 0.1
    """Share of the run over which λ rises from 0 to 1."""
    decay: float = 0.3
    """Share of the run, at its end, over which the learning rate falls to 0."""
    save_every: int = 500
    workers: int = 0
    device: str = "cpu"
    compile: bool = False
    seed: int = 0


def encode(example: Example, tokenizer: Any) -> Encoded:
    """Token ids as the expert will see them: the prompt and the answer's prefix are tokenized
    by themselves, as a server does, then the target and `<|end|>`."""
    turns = [{"role": turn.role, "content": turn.content} for turn in example.turns]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text + example.prefix, add_special_tokens=False)["input_ids"]
    target = tokenizer(example.target, add_special_tokens=False)["input_ids"]
    return Encoded([*prompt, *target, tokenizer.eos_token_id], len(prompt))


def collate(rows: list[Encoded], pad: int) -> Batch:
    """Pad rows to the longest of them, rounded up to a multiple of `LENGTH_STEP`."""
    longest = max(len(row.ids) for row in rows)
    length = -(-longest // LENGTH_STEP) * LENGTH_STEP
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), IGNORED)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        labels[number, row.start : len(row.ids)] = torch.tensor(row.ids[row.start :])
    return Batch(ids, labels)


class Pools(Dataset[list[Batch]]):
    """Pool k: about 24 batches of similar row lengths, drawn from `source(seed of k)`."""

    def __init__(
        self,
        source: Callable[[int], Iterator[Example]],
        tokenizer: Any,
        settings: Settings,
        batches: int = 24,
    ) -> None:
        self._source = source
        self._tokenizer = tokenizer
        self._settings = settings
        self._tokens = batches * settings.batch_tokens

    def __getitem__(self, index: int) -> list[Batch]:
        rows: list[Encoded] = []
        total = 0
        for example in self._source(self._settings.seed * 1_000_003 + index):
            row = encode(example, self._tokenizer)
            rows.append(row)
            total += len(row.ids)
            if total >= self._tokens:
                break
        batches = [collate(part, self._tokenizer.pad_token_id) for part in self._split(rows)]
        Random(index).shuffle(batches)
        return batches

    def _split(self, rows: list[Encoded]) -> Iterator[list[Encoded]]:
        part: list[Encoded] = []
        for row in sorted(rows, key=lambda row: len(row.ids)):
            if part and (len(part) + 1) * len(row.ids) > self._settings.batch_tokens:
                yield part
                part = []
            part.append(row)
        yield part


def schedule(settings: Settings, step: int, progress: float) -> tuple[float, float]:
    """Learning rate and λ at `step`, with `progress` from 0 to 1 through the run.

    Warm-up, plateau, then a decay to 0 along 1 - sqrt (Hägele et al. 2024).
    """
    rate = settings.learning_rate * min(1.0, (step + 1) / settings.learning_warmup)
    if progress > 1 - settings.decay:
        rate *= 1 - math.sqrt((progress - 1 + settings.decay) / settings.decay)
    strength = min(1.0, progress / settings.quantization_warmup)
    return max(rate, 1e-6), strength


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy (nats, float32) of the learned tokens. Logits are computed only there."""
    hidden = model.get_submodule("model")(input_ids=batch.ids, use_cache=False)[0]
    learned = batch.labels[:, 1:] != IGNORED
    logits = model.get_submodule("lm_head")(hidden[:, :-1][learned])
    return nn.functional.cross_entropy(logits.float(), batch.labels[:, 1:][learned])


class Trainer:
    """One training run: model, optimizer, position in the data, log."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        source: Callable[[int], Iterator[Example]],
        settings: Settings,
        on_save: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_save` is called after every checkpoint. Goes on from the checkpoint in
        `settings.folder` if there is one."""
        if (settings.steps is None) == (settings.minutes is None):
            raise ValueError("give either steps or minutes")
        self.model = model.to(settings.device)
        self.settings = settings
        self.on_save = on_save
        self.optimizer = _optimizer(self.model, settings)
        self._data = Pools(source, tokenizer, settings)
        self._loss = torch.compile(loss_of, dynamic=True) if settings.compile else loss_of
        self.step = self.tokens = self._pool = self._batch = 0
        self.seconds = 0.0
        settings.folder.mkdir(parents=True, exist_ok=True)
        if self._state_file.exists():
            self._resume()

    def run(self, report: Callable[[dict[str, float]], None]) -> None:
        """Train to the end of the run, calling `report` with a line of numbers now and then."""
        self.model.train()
        started, before, recent = time.monotonic(), self.seconds, []
        for batch in self._batches():
            self.seconds = before + time.monotonic() - started
            if self._progress() >= 1:
                break
            recent.append(self._train_step(batch))
            if self.step % 20 == 0:
                report(self._log(torch.stack(recent).mean().item()))
                recent = []
            if self.step % self.settings.save_every == 0:
                self.save()
        self.save()

    def save(self) -> None:
        """Write `state.pt` atomically."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": (self.step, self.tokens, self._pool, self._batch, self.seconds),
        }
        part = self._state_file.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self._state_file)
        self.on_save()

    @property
    def _state_file(self) -> Path:
        return self.settings.folder / "state.pt"

    def _resume(self) -> None:
        state = torch.load(self._state_file, map_location=self.settings.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.tokens, self._pool, self._batch, self.seconds = state["position"]

    def _progress(self) -> float:
        if self.settings.steps is not None:
            return self.step / self.settings.steps
        assert self.settings.minutes is not None
        return self.seconds / 60 / self.settings.minutes

    def _batches(self) -> Iterator[Batch]:
        loader: DataLoader[list[Batch]] = DataLoader(
            self._data,
            batch_size=None,
            sampler=range(self._pool, 1 << 40),
            num_workers=self.settings.workers,
        )
        for batches in loader:
            for batch in batches[self._batch :]:
                self._batch += 1
                yield batch
            self._pool, self._batch = self._pool + 1, 0

    def _train_step(self, batch: Batch) -> Tensor:
        rate, strength = schedule(self.settings, self.step, self._progress())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        set_strength(self.model, strength)
        device = self.settings.device
        batch = Batch(batch.ids.to(device), batch.labels.to(device))
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            loss = self._loss(self.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.tokens += batch.ids.numel()
        return loss.detach()

    def _log(self, loss: float) -> dict[str, float]:
        numbers = {
            "step": self.step,
            "progress": round(self._progress(), 4),
            "loss": round(loss, 5),
            "tokens": self.tokens,
            "seconds": round(self.seconds, 1),
        }
        with (self.settings.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(numbers) + "\n")
        return numbers


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW; no weight decay for norms and embeddings."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, settings.learning_rate, betas=(0.9, 0.95), fused=True)
