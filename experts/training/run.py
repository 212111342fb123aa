"""`trivium ternary train`: from a checkpoint and conversations to a packed ternary expert."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console

from experts.errors import ExpertsError
from experts.training.conversations import Conversation, DataError, read_conversations
from experts.training.datasets import ShuffledRows
from experts.training.dropout import add_residual_dropout
from experts.training.encoding import Row, collate, encode_conversation
from experts.training.folder import RunError, RunFolder, steps_of
from experts.training.models import Student, check_memory, load_student, load_teacher
from experts.training.progress import TrainingProgress, quieten_transformers
from experts.training.publish import Result, publish
from experts.training.settings import Recipe, Settings, recipe, training_arguments
from experts.training.trainer import Teacher, TernaryTrainer, TrainingError

DISK_BYTES = 12
"""Bytes a parameter takes in one saved checkpoint: the weight and two moments of AdamW."""


@dataclass(frozen=True)
class Data:
    """Encoded conversations, and how many were left out because they are too long."""

    training: list[Row]
    held_out: list[Row]
    dropped: int
    max_length: int


def train(settings: Settings, console: Console | None = None) -> None:
    """Train and write the packed checkpoint to `settings.out`. The same call goes on with a run
    that was stopped. Raises ExpertsError."""
    console = console or Console(quiet=os.environ.get("RANK", "0") != "0")
    settings = replace(settings, out=settings.out.absolute())
    quieten_transformers()
    plan = recipe(settings)
    run = RunFolder(settings.out.with_name(settings.out.name + ".training"))
    _check_target(settings.out, run)
    student = load_student(settings.model, settings.tokenizer, settings.seed)
    data = _load_data(settings, plan, student)
    _announce(console, settings, student, data)
    trainer = build_trainer(settings, plan, student, data, run.path)
    _check_disk(settings.out.parent, student.model)
    with trainer.accelerator.main_process_first():
        run.begin(_describe(settings))
    run_trainer(trainer, run, console)
    publish(Result(settings, plan, student, data, trainer, _held_out_loss(trainer)))
    if trainer.is_world_process_zero():
        console.print(
            f"packed checkpoint, model card and loss.png: {settings.out}\n"
            f"full-precision weights and optimizer: {run.path} (delete it when done)",
            highlight=False,
            soft_wrap=True,
        )


def build_trainer(
    settings: Settings, plan: Recipe, student: Student, data: Data, folder: Path
) -> TernaryTrainer:
    """The Trainer of a run, its data in order."""
    accumulation = int(plan.arguments.get("gradient_accumulation_steps", 1))
    make = partial(
        training_arguments,
        folder,
        batch=plan.batch,
        learning_rate=plan.learning_rate,
        seed=settings.seed,
        eval_strategy="steps" if data.held_out else "no",
        **plan.arguments,
    )
    step_rows = plan.batch * accumulation * make(steps=1).world_size
    steps = settings.steps or math.ceil(plan.epochs * len(data.training) / step_rows)
    add_residual_dropout(student.model, plan.residual_dropout)
    teacher = None
    if settings.teacher is not None:
        model = load_teacher(settings.teacher, student, settings.distillation)
        teacher = Teacher(model, student.model, settings.distillation)
    check_memory(student.model)
    pad = student.tokenizer.pad_token_id
    return TernaryTrainer(
        student.model,
        make(steps=steps),
        data_collator=partial(collate, pad=0 if pad is None else pad),
        train_dataset=ShuffledRows(data.training, steps * step_rows, plan.batch, settings.seed),
        eval_dataset=data.held_out or None,
        processing_class=student.tokenizer,
        warmup=settings.warmup,
        teacher=teacher,
    )


def run_trainer(trainer: Any, run: RunFolder, console: Console) -> None:
    """Train to the end, from the last checkpoint if there is one. Raises TrainingError."""
    progress = TrainingProgress(console)
    progress.attach(trainer)
    checkpoint = run.last_checkpoint()
    try:
        if checkpoint is not None and steps_of(checkpoint) >= trainer.args.max_steps:
            trainer.load_weights(checkpoint)
            return
        if checkpoint is not None:
            console.print(f"going on from step {steps_of(checkpoint)}", highlight=False)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (MemoryError, torch.OutOfMemoryError):
        raise TrainingError(
            "the memory is not enough for this batch: lower --batch or --max-length, and raise"
            " gradient_accumulation_steps with --set to keep the step's size"
        ) from None
    except OSError as error:
        raise TrainingError(f"{run.path} could not be written: {error}") from None
    finally:
        progress.close()
        run.end()


def _held_out_loss(trainer: Any) -> float | None:
    """The loss after the last step: as logged, or measured now. None if nothing is held out."""
    if trainer.eval_dataset is None:
        return None
    for line in trainer.state.log_history:
        if "eval_loss" in line and line["step"] == trainer.args.max_steps:
            return float(line["eval_loss"])
    return float(trainer.evaluate()["eval_loss"])


def _load_data(settings: Settings, plan: Recipe, student: Student) -> Data:
    conversations = read_conversations(settings.data)
    held_out: Sequence[Conversation] = []
    if settings.held_out_file is not None:
        held_out = read_conversations([settings.held_out_file])
    else:
        Random(settings.seed).shuffle(conversations)
        count = round(settings.held_out * len(conversations))
        held_out, conversations = conversations[:count], conversations[count:]
    if plan.max_examples is not None and len(conversations) > plan.max_examples:
        raise DataError(
            f"{len(conversations)} conversations are more than the {plan.max_examples} that the"
            f" preset {settings.preset} is for: choose the best of them, or leave --preset out"
        )
    longest = int(student.model.config.max_position_embeddings)
    length = min(plan.max_length or longest, longest)
    both = [[encode_conversation(c, student.tokenizer, student.end) for c in part]
            for part in (conversations, held_out)]  # fmt: skip
    kept = [[row for row in part if len(row.ids) <= length] for part in both]
    dropped = sum(map(len, both)) - sum(map(len, kept))
    if not kept[0]:
        raise DataError(f"every conversation is longer than {length} tokens: raise --max-length")
    return Data(kept[0], kept[1], dropped, length)


def _check_target(out: Path, run: RunFolder) -> None:
    if run.plan() is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is not empty and not from a training run: choose another --out")


def _check_disk(folder: Path, model: Any) -> None:
    needed = 3 * DISK_BYTES * sum(p.numel() for p in model.parameters())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ExpertsError(
            f"the run needs up to {needed / 2**30:.1f} GiB at {folder}, {free / 2**30:.1f} GiB are"
            " free: choose an --out on a larger disk"
        )


def _describe(settings: Settings) -> dict[str, Any]:
    """Everything that the result depends on, as plain data."""
    files = [*settings.data, *([settings.held_out_file] if settings.held_out_file else [])]
    plain: dict[str, Any] = {}
    for key, value in asdict(settings).items():
        plain[key] = str(value) if isinstance(value, Path) else value
    plain["data"] = {str(file): _digest(file) for file in files}
    plain["arguments"] = sorted(settings.arguments)
    del plain["out"]
    return plain


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"the data file {file} cannot be read: {error}") from None


def _announce(console: Console, settings: Settings, student: Student, data: Data) -> None:
    parameters = sum(p.numel() for p in student.model.parameters())
    tokens = sum(len(row.ids) for row in data.training)
    left_out = f"; {data.dropped} longer than {data.max_length} left out" if data.dropped else ""
    console.print(
        f"{settings.model}: {parameters / 1e6:,.1f} million parameters\n"
        f"{len(data.training)} conversations ({tokens:,} tokens), {len(data.held_out)} held out"
        f"{left_out}",
        highlight=False,
        soft_wrap=True,
    )
