"""Trains the arithmetic expert: `python -m experts.starter.arithmetic.train --minutes 60`.

Runs on a CPU or a GPU. It may be stopped at any time; the same command goes on from the last
checkpoint in `--folder`. `--export` gets the packed checkpoint at every save.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from experts.checkpoint import write_checkpoint
from experts.starter.arithmetic.data import examples
from experts.starter.model import new_model
from experts.starter.tokenizer import build_tokenizer, save_tokenizer
from experts.train import Settings, Trainer


def main() -> None:
    """Parse the command line, train, export."""
    options = _parser().parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = Settings(
        folder=options.folder,
        steps=options.steps,
        minutes=options.minutes,
        batch_tokens=options.batch_tokens,
        learning_rate=options.learning_rate,
        device=options.device,
        compile=options.compile,
        workers=options.workers,
        seed=options.seed,
        save_every=options.save_every,
    )
    model = new_model(settings.seed)

    def export() -> None:
        write_checkpoint(model, options.export, save_tokenizer)

    trainer = Trainer(model, build_tokenizer(), examples, settings, on_save=export)
    if trainer.step:
        print(f"going on from step {trainer.step} in {options.folder}", flush=True)
    trainer.run(_print)
    print(f"trained {trainer.step} steps, {trainer.tokens:,} tokens; exported to {options.export}")


def _print(line: dict[str, float]) -> None:
    speed = line["tokens"] / max(line["seconds"], 1e-9)
    print(
        f"step {line['step']:>6.0f}  {line['progress']:6.1%}  loss {line['loss']:.4f}"
        f"  {line['tokens']:>12,.0f} tokens  {speed:,.0f} tokens/s",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experts.starter.arithmetic.train", description=__doc__.split("\n")[0]
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="length of the run in optimizer steps")
    length.add_argument("--minutes", type=float, help="length of the run in minutes")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    home = Path.home() / ".cache" / "trivium" / "training" / "arithmetic"
    parser.add_argument("--device", default=default, help=f"cpu or cuda (here: {default})")
    parser.add_argument("--folder", type=Path, default=home, help=f"training state ({home})")
    parser.add_argument(
        "--export", type=Path, default=home / "checkpoint", help="where the packed checkpoint goes"
    )
    parser.add_argument("--batch-tokens", type=int, default=Settings.batch_tokens)
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate)
    parser.add_argument("--save-every", type=int, default=Settings.save_every, metavar="STEPS")
    parser.add_argument("--workers", type=int, default=0, help="processes that make examples")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile the model first")
    return parser


if __name__ == "__main__":
    main()
