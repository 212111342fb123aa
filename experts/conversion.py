"""`trivium ternary pack` and `unpack`: the conversions with a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError

from experts.checkpoint import CheckpointError, pack_checkpoint, unpack_checkpoint


def pack(source: Path, target: Path) -> None:
    """Pack `source` into the new folder `target` and print what became of it."""
    _run("Packing", pack_checkpoint, source, target)


def unpack(source: Path, target: Path) -> None:
    """Unpack `source` into the new folder `target` and print what became of it."""
    _run("Unpacking", unpack_checkpoint, source, target)


def _run(doing: str, convert: Callable[..., Any], source: Path, target: Path) -> None:
    columns = (TextColumn(doing), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(doing, total=None)
            convert(
                source,
                target,
                report=lambda done, total: progress.update(task, completed=done, total=total),
            )
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{target} cannot be written: {error}") from None
    before, after = _weight_bytes(source), _weight_bytes(target)
    print(f"{target}: {after / 1e6:,.1f} MB of weights, from {before / 1e6:,.1f} MB")


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
