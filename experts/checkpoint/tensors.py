"""The safetensors files of a checkpoint: every header checked, any one tensor read at a time.

Format: an 8-byte little-endian length, a JSON header of that length, the tensors one after the
other (https://github.com/huggingface/safetensors#format). `model.safetensors.index.json` says
which shard holds which tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from experts.checkpoint.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")
MAX_HEADER = 100_000_000
"""Bytes; safetensors itself accepts no longer one."""
BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Of one element, by safetensors' name of the dtype."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: dtype by safetensors' name; bytes [begin, end) after the header."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.end - self.begin

    def read(self) -> Tensor:
        """The tensor, mapped from the file."""
        try:
            with safe_open(self.file, "pt") as tensors:
                tensor: Tensor = tensors.get_tensor(self.name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.file} cannot be read as safetensors: {error}") from None


def read_all(entries: Iterable[Entry]) -> Iterator[tuple[Entry, Tensor]]:
    """Tensors mapped from their files, each of which is opened once. Raises CheckpointError."""
    files: dict[Path, list[Entry]] = {}
    for entry in entries:
        files.setdefault(entry.file, []).append(entry)
    for file, own in files.items():
        try:
            with safe_open(file, "pt") as tensors:
                for entry in own:
                    yield entry, tensors.get_tensor(entry.name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} cannot be read as safetensors: {error}") from None


def find_tensors(folder: Path) -> dict[str, Entry]:
    """Every tensor of a checkpoint's safetensors file, or of all its shards."""
    if (folder / WEIGHTS_FILE).exists():
        return read_header(folder / WEIGHTS_FILE)
    if (folder / INDEX_FILE).exists():
        return _read_shards(folder / INDEX_FILE)
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder} holds its weights as a pickle only ({pickles[0]}), and opening a pickle can"
            " run any program. If you trust its source, convert it:"
            f" safetensors.torch.save_file(torch.load('{pickles[0]}', weights_only=True),"
            f" '{WEIGHTS_FILE}')"
        )
    raise CheckpointError(f"{folder} holds no weights: there is no {WEIGHTS_FILE} or {INDEX_FILE}")


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of one file, in its order. Raises CheckpointError if the header is damaged, or
    if the file has not exactly the bytes that it names."""
    content, size = _raw_header(file)
    try:
        header = json.loads(content)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file} is not a safetensors file: its header is no JSON") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file} is not a safetensors file: its header is no JSON object")
    entries = [_entry(file, n, fields) for n, fields in header.items() if n != "__metadata__"]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    _check_offsets(file, entries, size)
    return {entry.name: entry for entry in entries}


def _raw_header(file: Path) -> tuple[bytes, int]:
    """The header as it stands, and how many bytes follow it."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > MAX_HEADER:
                raise CheckpointError(f"{file} is not a safetensors file: it has no valid length")
            if size < 8 + length:
                raise CheckpointError(f"{file} is truncated: it ends within its header")
            return stream.read(length), size - 8 - length
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None


def _entry(file: Path, name: str, fields: Any) -> Entry:
    try:
        dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError
        if not isinstance(dtype, str):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{file}: the header's entry of {name} is damaged") from None
    if dtype not in BYTES:
        raise CheckpointError(f"{name} has the unknown dtype {dtype} in {file}")
    if end - begin != BYTES[dtype] * math.prod(shape):
        raise CheckpointError(
            f"{file} gives {name} {end - begin} bytes, which are not {dtype} {list(shape)}"
        )
    return Entry(name, file, dtype, tuple(shape), begin, end)


def _check_offsets(file: Path, entries: list[Entry], size: int) -> None:
    """`entries`, in the order of their offsets, must cover the `size` bytes of data."""
    end, before = 0, "the header"
    for entry in entries:
        if entry.begin < end:
            raise CheckpointError(f"{file}: {entry.name} and {before} overlap")
        if entry.end > size:
            raise CheckpointError(
                f"{file} is truncated: it ends before the end of {entry.name}. Copy it again"
            )
        if entry.begin > end:
            raise CheckpointError(f"{file}: there is a gap between {before} and {entry.name}")
        end, before = entry.end, entry.name
    if end < size:
        raise CheckpointError(f"{file} holds {size - end} bytes too many after {before}")


def _read_shards(index: Path) -> dict[str, Entry]:
    places = _read_index(index)
    found: dict[str, Entry] = {}
    for shard in sorted(set(places.values())):
        file = index.with_name(shard)
        if not file.exists():
            raise CheckpointError(f"{file} is missing, and {index.name} says it holds tensors")
        for name, entry in read_header(file).items():
            if name in found:
                raise CheckpointError(f"{name} is in two shards: {found[name].file} and {file}")
            if name not in places:
                raise CheckpointError(f"{file} holds {name}, which {index.name} does not name")
            found[name] = entry
    for name, shard in places.items():
        if name not in found or found[name].file.name != shard:
            raise CheckpointError(f"{index} says that {shard} holds {name}, but it does not")
    return found


def _read_index(index: Path) -> dict[str, str]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = {str(name): Path(shard) for name, shard in places.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index} is damaged: it holds no weight_map") from None
    for name, shard in pairs.items():
        if shard.name != str(shard):
            raise CheckpointError(f"{index} puts {name} outside the folder: {shard}")
    return {name: shard.name for name, shard in pairs.items()}
