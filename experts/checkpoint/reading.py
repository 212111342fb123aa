"""Reading a ternary checkpoint strictly, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experts.checkpoint.errors import CheckpointError
from experts.checkpoint.layout import Layout, Shape, read_layout
from experts.checkpoint.tensors import Entry, find_tensors, read_all
from experts.packing import VALUES_PER_BYTE, PackingError, check_packed, pack, unpack
from experts.ternary import ternarize

FLOATS = ("F32", "BF16", "F16")


@dataclass(frozen=True)
class TernaryWeight:
    """One ternary layer: `values` int8 `[out, in]` in {-1, 0, 1}, `gamma` float32 `[]`, `bias`
    float `[out]`: y = values · x · γ + bias, however the file scales it."""

    values: Tensor
    gamma: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class PackedWeight:
    """One ternary layer: `packed` uint8 `[out/4, in]`, checked; `gamma` and `bias` as above."""

    packed: Tensor
    gamma: Tensor
    bias: Tensor | None = None

    def unpack(self) -> TernaryWeight:
        """The same layer with one int8 for each value."""
        return TernaryWeight(unpack(self.packed), self.gamma, self.bias)


@dataclass(frozen=True)
class TernaryCheckpoint:
    """A checkpoint as read: transformers' configuration, ternary layers and other tensors."""

    config: Any
    layers: dict[str, TernaryWeight]
    tensors: dict[str, Tensor]


class Reader:
    """A checkpoint on disk. Names, shapes and dtypes are checked when it is opened, values when
    they are read. Raises CheckpointError, which names the tensor or the file."""

    def __init__(self, folder: Path, plain: bool = False, layout: Layout | None = None) -> None:
        """`plain` also takes a checkpoint without quantization_config (see `read_layout`);
        `layout` is what `read_layout` would say, where that is known (it takes a third of a
        second)."""
        self.folder = folder
        self.layout: Layout = layout or read_layout(folder, plain)
        self.entries: dict[str, Entry] = find_tensors(folder)
        self._check_names()
        for name, shape in self.layout.ternary.items():
            self._check_ternary(name, shape)
        for name, shape in self.layout.kept.items():
            self._check_entry(name, shape, FLOATS)
        for name, same in self.layout.tied.items():
            if name in self.entries:
                self._check_entry(name, self.layout.kept[same], FLOATS)

    def pieces(self) -> Iterator[tuple[str, PackedWeight | Tensor]]:
        """Ternary layers by their names, other tensors by theirs, in the order of the files.
        Full-precision weights of ternary layers are quantized here (b1.58)."""
        for name in self._in_file_order():
            if name in self.layout.ternary:
                yield name, self._read_ternary(name)
            else:
                yield name, self._read_kept(name)
        self._check_tied()

    def stored(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor as it is in the files, for a loader that checks packed bytes and scales
        itself; the others are checked here."""
        for entry, tensor in read_all(self.entries.values()):
            if entry.dtype != "U8":
                self._check_finite(entry.name, tensor)
            yield entry.name, tensor
        self._check_tied()

    def stored_bytes(self, name: str) -> int:
        """Bytes on disk of a piece: of a ternary layer, its weight, scale and bias."""
        parts = (name, f"{name}.weight", f"{name}.weight_scale", f"{name}.bias")
        return sum(self.entries[part].size for part in parts if part in self.entries)

    def _check_names(self) -> None:
        layout = self.layout
        expected = {*layout.kept, *(f"{name}.weight" for name in layout.ternary)}
        expected |= {f"{name}.bias" for name in layout.biased}
        if layout.form == "packed":
            expected |= {f"{name}.weight_scale" for name in layout.ternary}
        missing = sorted(expected - self.entries.keys())
        if missing:
            raise CheckpointError(f"{self.folder} lacks the tensor {_some(missing)}")
        unknown = sorted(self.entries.keys() - expected - layout.tied.keys())
        unknown = [name for name in unknown if not layout.ignored.search(name)]
        if unknown:
            raise CheckpointError(
                f"{self.folder} holds tensors that its config.json has no place for:"
                f" {_some(unknown)}"
            )

    def _check_ternary(self, name: str, shape: Shape) -> None:
        if shape[0] % VALUES_PER_BYTE:
            raise CheckpointError(
                f"{name} has {shape[0]} outputs, and only multiples of {VALUES_PER_BYTE} can be"
                " packed: name it in modules_to_not_convert"
            )
        if name in self.layout.biased:
            self._check_entry(f"{name}.bias", shape[:1], FLOATS)
        if self.layout.form != "packed":
            self._check_entry(f"{name}.weight", shape, FLOATS)
            return
        rows = shape[0] // VALUES_PER_BYTE
        self._check_entry(f"{name}.weight", (rows, *shape[1:]), ("U8",), " packed")
        scale = self.entries[f"{name}.weight_scale"]
        self._check_entry(scale.name, () if scale.shape == () else (1,), FLOATS)

    def _check_entry(
        self, name: str, shape: Shape, dtypes: tuple[str, ...], packed: str = ""
    ) -> None:
        entry = self.entries[name]
        if entry.dtype not in dtypes:
            raise CheckpointError(
                f"{name} in {entry.file} has dtype {entry.dtype} instead of {' or '.join(dtypes)}"
            )
        if entry.shape != shape:
            raise CheckpointError(
                f"{name} in {entry.file} has shape {list(entry.shape)} instead of"
                f"{packed} {list(shape)}"
            )

    def _in_file_order(self) -> list[str]:
        def place(name: str) -> tuple[str, int]:
            entry = self.entries[f"{name}.weight" if name in self.layout.ternary else name]
            return entry.file.name, entry.begin

        return sorted([*self.layout.ternary, *self.layout.kept], key=place)

    def _read_ternary(self, name: str) -> PackedWeight:
        if self.layout.form != "packed":
            values, gamma = ternarize(self._read_kept(f"{name}.weight"))
            return PackedWeight(pack(values), gamma, self._read_bias(name, gamma))
        entry = self.entries[f"{name}.weight"]
        packed = entry.read()
        try:
            check_packed(packed)
        except PackingError as error:
            raise CheckpointError(f"{entry.name} in {entry.file}: {error}") from None
        gamma = self._read_gamma(f"{name}.weight_scale")
        return PackedWeight(packed, gamma, self._read_bias(name, gamma))

    def _read_bias(self, name: str, gamma: Tensor) -> Tensor | None:
        if name not in self.layout.biased:
            return None
        bias = self._read_kept(f"{name}.bias")
        return bias.float() * gamma if self.layout.scales_bias else bias

    def _read_gamma(self, name: str) -> Tensor:
        scale = self.entries[name].read().float().reshape(())
        gamma = scale if self.layout.multiplies else 1.0 / scale
        if not (scale > 0 and torch.isfinite(scale) and torch.isfinite(gamma)):
            raise CheckpointError(
                f"{name} in {self.entries[name].file} is {float(scale):g}, not a positive number"
            )
        return gamma

    def _read_kept(self, name: str) -> Tensor:
        tensor = self.entries[name].read()
        self._check_finite(name, tensor)
        return tensor

    def _check_finite(self, name: str, tensor: Tensor) -> None:
        low, high = tensor.aminmax()  # NaN shows in both, and no copy is made
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise CheckpointError(f"{name} in {self.entries[name].file} holds NaN or infinity")

    def _check_tied(self) -> None:
        """A tied tensor that is there nevertheless must be the same: transformers would use it."""
        for name, same in self.layout.tied.items():
            if name in self.entries and not torch.equal(
                self.entries[name].read(), self.entries[same].read()
            ):
                raise CheckpointError(
                    f"{name} differs from {same}, though tie_word_embeddings says they are one:"
                    " set it to false in config.json, or leave the tensor out"
                )


def iterate(folder: Path) -> Iterator[tuple[str, PackedWeight | Tensor]]:
    """Every ternary layer and every other tensor of a checkpoint, checked, one at a time."""
    return Reader(folder).pieces()


def check(folder: Path, report: Callable[[str], None] = lambda name: None) -> None:
    """Read everything once and keep nothing. Raises CheckpointError if anything is wrong."""
    for name, _ in iterate(folder):
        report(name)


def read_checkpoint(folder: Path) -> TernaryCheckpoint:
    """The whole of a checkpoint, with unpacked ternary layers. Raises CheckpointError."""
    reader = Reader(folder)
    layers: dict[str, TernaryWeight] = {}
    tensors: dict[str, Tensor] = {}
    for name, piece in reader.pieces():
        if isinstance(piece, PackedWeight):
            layers[name] = piece.unpack()
        else:
            tensors[name] = piece
    return TernaryCheckpoint(reader.layout.config, layers, tensors)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
