"""`trivium ternary`: options in, one module each. No logic here, and no torch until one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    help="Inspect, train and verify ternary checkpoints (BitNet b1.58).", no_args_is_help=True
)

Folder = Annotated[Path, typer.Argument(help="Folder of a checkpoint.")]
Target = Annotated[Path, typer.Argument(help="Folder to make; it must not exist.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command()
def inspect(
    folder: Folder,
    picture: Annotated[Path | None, typer.Option(help="Write the histograms here, as PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Show a checkpoint's layers: bits, sparsity, scales, size against bf16."""
    from experts import inspection

    inspection.inspect(folder, picture, as_json)


@app.command()
def pack(source: Folder, target: Target) -> None:
    """Pack full-precision weights that were trained ternary (2 bits a weight)."""
    from experts import conversion

    conversion.pack(source, target)


@app.command()
def unpack(source: Folder, target: Target) -> None:
    """Turn a packed checkpoint into bf16 weights that can be trained on and packed again."""
    from experts import conversion

    conversion.unpack(source, target)


@app.command()
def verify(
    folder: Folder,
    tokens: Annotated[int, typer.Option(help="Length of each greedy text.")] = 32,
    as_json: Json = False,
) -> None:
    """Compare logits and greedy text: transformers' own BitNet code against ours in vLLM."""
    from experts import verification

    raise typer.Exit(verification.verify(folder, tokens, as_json))


@app.command()
def train(
    model: Annotated[
        Path, typer.Argument(help="Full-precision checkpoint folder, or a config.json: fresh.")
    ],
    data: Annotated[list[Path], typer.Argument(help="Chat JSONL files.")],
    out: Annotated[Path, typer.Option(help="Folder for the packed checkpoint.")],
    tokenizer: Annotated[Path | None, typer.Option(help="Its folder, if not MODEL's.")] = None,
    eval_file: Annotated[
        Path | None, typer.Option("--eval", help="Chat JSONL for the held-out loss.")
    ] = None,
    held_out: Annotated[float, typer.Option(help="Share held out, without --eval.")] = 0.05,
    teacher: Annotated[
        Path | None, typer.Option(help="Full-precision checkpoint to distil from.")
    ] = None,
    logits: Annotated[float, typer.Option(help="Weight of the teacher's logits.")] = 1.0,
    temperature: Annotated[float, typer.Option(help="Of the logits' divergence.")] = 2.0,
    relations: Annotated[float, typer.Option(help="Weight of attention relations.")] = 0.0,
    hidden: Annotated[float, typer.Option(help="Weight of hidden states.")] = 0.0,
    preset: Annotated[
        Literal["lima"] | None, typer.Option(help="lima: 15 epochs over at most 1,000 examples.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data [3].")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead.")] = None,
    batch: Annotated[int | None, typer.Option(help="Conversations a batch [8].")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest [3e-4].")] = None,
    warmup: Annotated[float, typer.Option(help="Share of the run for λ from 0 to 1.")] = 0.2,
    max_length: Annotated[int | None, typer.Option(help="Tokens; longer is left out.")] = None,
    seed: Annotated[int, typer.Option(help="Of data order, dropout, fresh weights.")] = 0,
    arguments: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for TrainingArguments.")
    ] = None,
) -> None:
    """Train a ternary expert on conversations; the same command goes on after a stop."""
    from experts.training.distillation import Distillation
    from experts.training.run import train as run_training
    from experts.training.settings import Settings

    run_training(
        Settings(
            model=model,
            data=tuple(data),
            out=out,
            tokenizer=tokenizer,
            held_out_file=eval_file,
            held_out=held_out,
            teacher=teacher,
            distillation=Distillation(logits, temperature, relations, hidden),
            preset=preset,
            steps=steps,
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            warmup=warmup,
            max_length=max_length,
            seed=seed,
            arguments=tuple(arguments or ()),
        )
    )
