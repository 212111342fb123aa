"""What a run is told, and how that becomes transformers' TrainingArguments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from experts.errors import ExpertsError
from experts.training.distillation import Distillation

LIMA_EXAMPLES = 1000
LIMA_LENGTH = 2048
OWN = frozenset(
    {"output_dir", "max_steps", "num_train_epochs", "resume_from_checkpoint", "seed",
     "per_device_train_batch_size", "learning_rate", "train_sampling_strategy",
     "remove_unused_columns", "prediction_loss_only"}
)  # fmt: skip
"""TrainingArguments that `--set` may not change: they have options, or must be as they are."""


class SettingsError(ExpertsError):
    """Options that cannot be used; the message says which."""


@dataclass(frozen=True)
class Settings:
    """Options of `trivium ternary train`."""

    model: Path
    data: tuple[Path, ...]
    out: Path
    """Gets the packed checkpoint; `OUT.training` beside it holds the run."""
    tokenizer: Path | None = None
    held_out_file: Path | None = None
    held_out: float = 0.05
    """Share of the conversations kept out of training, if there is no file."""
    teacher: Path | None = None
    distillation: Distillation = field(default_factory=Distillation)
    preset: Literal["lima"] | None = None
    steps: int | None = None
    epochs: float | None = None
    batch: int | None = None
    learning_rate: float | None = None
    warmup: float = 0.2
    """Share of the run over which the quantization's λ rises from 0 to 1."""
    max_length: int | None = None
    seed: int = 0
    arguments: tuple[str, ...] = ()
    """`key=value` for TrainingArguments."""


@dataclass(frozen=True)
class Recipe:
    """The numbers of a run that a preset decides, options applied."""

    epochs: float
    batch: int
    learning_rate: float
    residual_dropout: float
    max_length: int | None
    max_examples: int | None
    arguments: dict[str, Any]


def recipe(settings: Settings) -> Recipe:
    """The preset's numbers, or the usual ones, with the given options in their place.

    LIMA (arXiv 2305.11206, section 3): 15 epochs, AdamW with β 0.9 and 0.95, weight decay 0.1, no
    warm-up, learning rate 1e-5 falling linearly to 1e-6, 32 examples a batch, texts of up to 2048
    tokens, residual dropout from 0.0 to 0.3. Raises SettingsError.
    """
    _check(settings)
    lima = settings.preset == "lima"
    plan = _LIMA if lima else _USUAL
    return Recipe(
        epochs=settings.epochs or (15.0 if lima else 3.0),
        batch=settings.batch or (32 if lima else 8),
        learning_rate=settings.learning_rate or (1e-5 if lima else 3e-4),
        residual_dropout=0.3 if lima else 0.0,
        max_length=settings.max_length or (LIMA_LENGTH if lima else None),
        max_examples=LIMA_EXAMPLES if lima else None,
        arguments={**plan, **parse_arguments(settings.arguments)},
    )


_USUAL: dict[str, Any] = {
    "lr_scheduler_type": "warmup_stable_decay",
    "warmup_steps": 0.03,
    "adam_beta2": 0.95,
    "weight_decay": 0.05,
}
_LIMA: dict[str, Any] = {
    "lr_scheduler_type": "polynomial",
    "lr_scheduler_kwargs": {"lr_end": 1e-6, "power": 1.0},
    "warmup_steps": 0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "weight_decay": 0.1,
}
_ALWAYS: dict[str, Any] = {
    "max_grad_norm": 1.0,
    "logging_steps": 0.01,
    "eval_steps": 0.05,
    "save_steps": 0.1,
    "save_total_limit": 2,
    "logging_nan_inf_filter": False,
    "ddp_find_unused_parameters": False,
    "report_to": "none",
    "include_num_input_tokens_seen": "non_padding",
    "use_cache": True,  # of the configuration that is saved; training itself uses none
}
"""Shares of the run where transformers reads a number below 1 as one."""


def parse_arguments(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` strings; a value is JSON where it can be read as such, else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise SettingsError(f"--set {pair}: write key=value, e.g. --set weight_decay=0.1")
        if key in OWN:
            raise SettingsError(f"--set {key}: this one has an option of its own, or is fixed")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def training_arguments(
    folder: Path, *, batch: int, learning_rate: float, steps: int, seed: int, **others: Any
) -> Any:
    """TrainingArguments for a run of `steps` steps kept in `folder`. Raises SettingsError for a
    name or value that transformers does not take."""
    if others.get("use_cpu") is not True and torch.cuda.is_available():
        others.setdefault("bf16", torch.cuda.is_bf16_supported())
    own = {
        "output_dir": str(folder),
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "learning_rate": learning_rate,
        "max_steps": steps,
        "seed": seed,
        "train_sampling_strategy": "sequential",  # the dataset decides the order
        "save_strategy": "steps",
        "remove_unused_columns": False,
        "prediction_loss_only": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    try:
        return TrainingArguments(**{**_ALWAYS, **own, **others})
    except (TypeError, ValueError, ImportError, OSError) as error:
        text = str(error).replace("TrainingArguments.__init__() got an unexpected", "unknown")
        raise SettingsError(f"transformers refuses these training arguments: {text}") from None


def _check(settings: Settings) -> None:
    if settings.steps is not None and settings.epochs is not None:
        raise SettingsError("give either --steps or --epochs")
    if not 0 <= settings.held_out < 1:
        raise SettingsError(f"--held-out is a share from 0 to below 1, not {settings.held_out}")
    if not 0 <= settings.warmup <= 1:
        raise SettingsError(f"--warmup is a share from 0 to 1, not {settings.warmup}")
    for name in ("steps", "epochs", "batch", "learning_rate", "max_length"):
        value = getattr(settings, name)
        if value is not None and value <= 0:
            option = name.replace("_", "-")
            raise SettingsError(f"--{option} must be above 0, not {value}")
    if settings.distillation.temperature <= 0:
        raise SettingsError("--temperature must be above 0")
