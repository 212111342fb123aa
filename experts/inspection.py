"""`trivium ternary inspect`: a checkpoint's layers as a table, as JSON, or as a picture."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experts.checkpoint import CheckpointError, PackedWeight, Reader
from experts.packing import VALUES_PER_BYTE, count_values

BF16_BYTES = 2
SCALE_BYTES = 2
KILO, MEGA, GIGA = 1e3, 1e6, 1e9
WIDEST = 200
"""Columns of text that the table may take: a line that runs on is better than one cut off."""


@dataclass(frozen=True)
class TernaryLayer:
    """One ternary layer: how many values are -1, 0 and +1, its γ, its bytes on disk (with the
    scale)."""

    name: str
    shape: tuple[int, ...]
    negative: int
    zero: int
    positive: int
    scale: float
    stored_bytes: int

    @property
    def weights(self) -> int:
        return self.negative + self.zero + self.positive

    @property
    def packed_bytes(self) -> int:
        """On disk once it is packed."""
        return self.weights // VALUES_PER_BYTE + SCALE_BYTES


@dataclass(frozen=True)
class KeptTensor:
    """A tensor that is not ternary."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    weights: int
    stored_bytes: int


@dataclass(frozen=True)
class Inspection:
    """A whole checkpoint."""

    folder: str
    architecture: str
    form: str
    linear_class: str
    layers: tuple[TernaryLayer, ...]
    kept: tuple[KeptTensor, ...]


def inspect(folder: Path, picture: Path | None, as_json: bool) -> None:
    """Print the checkpoint in `folder`, and draw it into `picture` if one is named.

    Raises CheckpointError if it is damaged, or if the picture cannot be written.
    """
    inspection = examine(folder)
    if picture is not None:
        _draw(inspection, picture)
    if as_json:
        print(json.dumps(_as_json(inspection), indent=2))
    else:
        _print(inspection)


def examine(folder: Path) -> Inspection:
    """Read every tensor once, one at a time."""
    reader = Reader(folder)
    layers: dict[str, TernaryLayer] = {}
    kept: dict[str, KeptTensor] = {}
    for name, piece in reader.pieces():
        stored = reader.stored_bytes(name)
        if isinstance(piece, PackedWeight):
            shape = reader.layout.ternary[name]
            counts = count_values(piece.packed)
            layers[name] = TernaryLayer(name, shape, *counts, float(piece.gamma), stored)
        else:
            dtype = str(piece.dtype).removeprefix("torch.")
            kept[name] = KeptTensor(name, tuple(piece.shape), dtype, piece.numel(), stored)
    return Inspection(
        str(folder),
        type(reader.layout.config).__name__.removesuffix("Config"),
        reader.layout.form,
        reader.layout.quantization.linear_class,
        tuple(layers[name] for name in reader.layout.ternary),
        tuple(kept[name] for name in reader.layout.kept),
    )


def kind(name: str) -> str:
    """A tensor's name within its block: what the same tensors of all blocks share."""
    return re.sub(r"^(.*?\.\d+|model)\.", "", name).removesuffix(".weight")


def depth(name: str) -> int:
    """The block a tensor belongs to, 0 if to none."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found.group(1)) if found else 0


def _groups(items: Iterable[Any]) -> dict[tuple[str, tuple[int, ...]], list[Any]]:
    """Tensors of one kind and shape together, in the order of the first of each."""
    groups: dict[tuple[str, tuple[int, ...]], list[Any]] = {}
    for item in items:
        groups.setdefault((kind(item.name), item.shape), []).append(item)
    return groups


def _as_json(inspection: Inspection) -> dict[str, Any]:
    content = asdict(inspection)
    for layer, row in zip(inspection.layers, content["layers"], strict=True):
        row["bits_per_weight"] = 8 * layer.stored_bytes / layer.weights
        row["sparsity"] = layer.zero / layer.weights
    layers, kept = inspection.layers, inspection.kept
    content["totals"] = {
        "ternary": _total(layers) | {"sparsity": _sparsity(layers)},
        "kept": _total(kept),
        "all": _total((*layers, *kept)),
    }
    return content


def _total(items: Sequence[TernaryLayer | KeptTensor]) -> dict[str, int]:
    weights = sum(item.weights for item in items)
    stored = sum(item.stored_bytes for item in items)
    return {"weights": weights, "stored_bytes": stored, "bf16_bytes": BF16_BYTES * weights}


def _sparsity(layers: Sequence[TernaryLayer]) -> float:
    return sum(layer.zero for layer in layers) / sum(layer.weights for layer in layers)


def _print(inspection: Inspection) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = _table(inspection)
    wide = console.options.update(width=WIDEST)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    form = "packed" if inspection.form == "packed" else "online (full-precision masters)"
    console.print(f"{inspection.folder}: {inspection.architecture}, {form}")
    console.print(table)
    if inspection.form != "packed":
        packed = sum(layer.packed_bytes for layer in inspection.layers)
        console.print(
            "Zeros and scales are what the masters quantize to. Packed, the ternary layers take"
            f" {_size(packed)}: trivium ternary pack {inspection.folder} TARGET"
        )


def _table(inspection: Inspection) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for column in ("n", "shape", "bits", "zeros", "scale: min", "median", "max", "size", "/ bf16"):
        table.add_column(column, justify="right", no_wrap=True)
    for (name, shape), layers in _groups(inspection.layers).items():
        scales = [layer.scale for layer in layers]
        spread = (min(scales), statistics.median(scales), max(scales))
        table.add_row(*_cells(name, shape, layers, [f"{scale:#.3g}" for scale in spread]))
    table.add_section()
    matrices = [tensor for tensor in inspection.kept if len(tensor.shape) > 1]
    vectors = [tensor for tensor in inspection.kept if len(tensor.shape) <= 1]
    for (name, shape), tensors in _groups(matrices).items():
        table.add_row(*_cells(name, shape, tensors))
    table.add_row(*_cells("norms and biases", None, vectors))
    table.add_section()
    both: list[TernaryLayer | KeptTensor] = [*inspection.layers, *inspection.kept]
    table.add_row(*_cells("ternary layers", None, inspection.layers), style="bold")
    table.add_row(*_cells("kept tensors", None, inspection.kept), style="bold")
    table.add_row(*_cells("whole checkpoint", None, both), style="bold")
    return table


def _cells(
    name: str,
    shape: tuple[int, ...] | None,
    items: Sequence[TernaryLayer | KeptTensor],
    scales: Iterable[str] = ("", "", ""),
) -> list[str]:
    total = _total(items)
    ternary = [item for item in items if isinstance(item, TernaryLayer)]
    return [
        name,
        str(len(items)),
        " × ".join(map(str, shape)) if shape else "",
        f"{8 * total['stored_bytes'] / total['weights']:.2f}",
        f"{_sparsity(ternary):.1%}" if len(ternary) == len(items) else "",
        *scales,
        _size(total["stored_bytes"]),
        f"{total['stored_bytes'] / total['bf16_bytes']:.1%}",
    ]


def _size(number: float) -> str:
    if number >= GIGA:
        return f"{number / GIGA:.2f} GB"
    return f"{number / MEGA:.2f} MB" if number >= MEGA / 10 else f"{number / KILO:.1f} kB"


def _draw(inspection: Inspection, picture: Path) -> None:
    from experts.inspection_picture import draw

    try:
        draw(inspection, picture)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{picture} cannot be written: {error}") from None
