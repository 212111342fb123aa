"""`trivium ternary`: options in, one module each. No logic here, and no torch until one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Inspect, train and verify ternary checkpoints (BitNet b1.58).", no_args_is_help=True
)

Folder = Annotated[Path, typer.Argument(help="Folder of a checkpoint.")]
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
def verify(
    folder: Folder,
    tokens: Annotated[int, typer.Option(help="Length of each greedy text.")] = 32,
    as_json: Json = False,
) -> None:
    """Compare logits and greedy text: transformers' own BitNet code against ours in vLLM."""
    from experts import verification

    raise typer.Exit(verification.verify(folder, tokens, as_json))
