"""Training of a starter expert from generated examples: one command line for all of them."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerCallback

from experts.checkpoint import write_checkpoint
from experts.checkpoint.layout import CONFIG_FILE
from experts.errors import ExpertsError
from experts.starter.model import model_from, new_model
from experts.starter.tokenizer import build_tokenizer, save_tokenizer
from experts.training.conversations import Example
from experts.training.curve import draw_loss
from experts.training.datasets import GeneratedBatches, only_item
from experts.training.folder import RunFolder
from experts.training.progress import quieten_transformers
from experts.training.run import run_trainer
from experts.training.settings import training_arguments
from experts.training.trainer import TernaryTrainer, TrainingError

Source = Callable[[int], Iterator[Example]]
TIMED_STEPS = 24
"""Steps on a copy of the model that say how many fit into `--minutes`."""
WARMUP = 0.2
"""Share of the run over which weights and activations become ternary and int8."""


def main(name: str, source: Source, description: str) -> None:
    """Parse the command line, train the expert `name`, export it.

    `source(seed)` is an endless stream of examples, the same for the same seed.
    """
    options = _parser(name, description).parse_args()
    if options.bf16 is None:
        options.bf16 = _has_bf16(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    quieten_transformers()
    try:
        _train(name, source, options)
    except ExpertsError as error:
        raise SystemExit(f"error: {error}") from None


def _train(name: str, source: Source, options: argparse.Namespace) -> None:
    console = Console()
    _check_export(options.export)
    model = model_from(options.start) if options.start else new_model(options.seed)
    if options.device == "cpu":
        model.set_attn_implementation("eager")  # faster than the fused one in short rows
    tokenizer = build_tokenizer()
    run = RunFolder(options.folder)
    settings = {
        "minutes": options.minutes,
        "batch_tokens": options.batch_tokens,
        "learning_rate": options.learning_rate,
        "bf16": options.bf16,
        "seed": options.seed,
        **({"from": str(options.start)} if options.start else {}),
    }
    before = run.plan() or {}
    if options.minutes is None:
        steps = options.steps
    elif before.get("minutes") == options.minutes:
        steps = before["steps"]
    else:
        steps = _steps_in(options.minutes, model, source, tokenizer, options)
        console.print(f"{options.minutes:g} minutes are about {steps} steps", highlight=False)
    run.begin({"steps": steps, **settings})
    trainer = _trainer(model, tokenizer, source, steps, options, options.folder)
    if options.compile:
        model.model.compile(dynamic=True)
    trainer.add_callback(_Export(options.export))
    run_trainer(trainer, run, console)
    write_checkpoint(model, options.export, save_tokenizer)
    draw_loss(trainer.state.log_history, f"{name}: ternary training", run.path / "loss.png")
    tokens = trainer.state.num_input_tokens_seen
    console.print(
        f"trained {steps} steps, {tokens:,} tokens; exported to {options.export};"
        f" loss curve: {run.path / 'loss.png'}",
        highlight=False,
        soft_wrap=True,
    )


def _check_export(folder: Path) -> None:
    """Raise TrainingError where a checkpoint would come among files that are something else."""
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG_FILE).exists():
        raise TrainingError(
            f"{folder} is not empty and no checkpoint: name another folder with --export"
        )


def _trainer(
    model: Any,
    tokenizer: Any,
    source: Source,
    steps: int,
    options: argparse.Namespace,
    folder: Path,
) -> TernaryTrainer:
    """Warm-up, plateau and decay of the learning rate; λ rises over the first fifth."""
    arguments = training_arguments(
        folder,
        batch=1,  # the dataset's items are batches
        learning_rate=options.learning_rate,
        steps=steps,
        seed=options.seed,
        use_cpu=options.device == "cpu",
        bf16=options.bf16,
        dataloader_num_workers=options.workers,
        lr_scheduler_type="warmup_stable_decay",
        warmup_steps=min(100, steps // 10),
        adam_beta2=0.95,
        weight_decay=0.05,
        save_steps=options.save_every,
        logging_steps=min(20, options.save_every),
    )
    count = steps * arguments.world_size
    return TernaryTrainer(
        model,
        arguments,
        data_collator=only_item,
        train_dataset=GeneratedBatches(
            source, tokenizer, count, options.batch_tokens, options.seed
        ),
        processing_class=tokenizer,
        warmup=WARMUP,
    )


def _steps_in(
    minutes: float, model: Any, source: Source, tokenizer: Any, options: argparse.Namespace
) -> int:
    """How many steps a run of `minutes` has at the speed that a copy of the model shows now."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        timed = deepcopy(model)
        trainer = _trainer(timed, tokenizer, source, TIMED_STEPS, options, Path(folder))
        if options.compile:
            timed.model.compile(dynamic=True)
        trainer.args.save_strategy = "no"
        trainer.add_callback(clock)
        run_trainer(trainer, RunFolder(Path(folder)), Console(quiet=True))
    return max(1, round(60 * minutes / clock.seconds))


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Times the steps."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._ends.append(time.monotonic())

    @property
    def seconds(self) -> float:
        """The median step of the second half: in the first, data and memory are made ready."""
        return median(b - a for a, b in pairwise(self._ends[len(self._ends) // 2 :]))


class _Export(TrainerCallback):  # type: ignore[misc]
    """Writes the packed checkpoint at every save."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_save(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        if args.should_save:
            write_checkpoint(model, self._folder, save_tokenizer)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    module = sys.modules["__main__"].__spec__
    parser = argparse.ArgumentParser(
        prog=f"python -m {module.name}" if module else None, description=description
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="length of the run in optimizer steps")
    length.add_argument(
        "--minutes", type=float, help="length in minutes, at the speed measured at the start"
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    home = Path.home() / ".cache" / "trivium" / "training" / name
    parser.add_argument("--device", default=default, help=f"cpu or cuda (here: {default})")
    parser.add_argument("--folder", type=Path, default=home, help=f"the run ({home})")
    parser.add_argument(
        "--export",
        type=Path,
        default=home.with_name(f"{name}-checkpoint"),
        help="where the packed checkpoint goes",
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="FOLDER",
        help="start with the weights of another starter expert's packed checkpoint",
    )
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--save-every", type=int, default=500, metavar="STEPS")
    parser.add_argument("--workers", type=int, default=0, help="processes that make examples")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="compute products in bf16 (where the device is faster with it)",
    )
    compiler = os.environ.get("CXX", "g++")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=shutil.which(compiler) is not None,
        help=f"compile the model first; takes a minute and a C++ compiler ({compiler})",
    )
    return parser


def _has_bf16(device: str) -> bool:
    """Whether products of bf16 numbers are faster than those of float32 there."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())
