"""Between full-precision master weights and packed ternary ones, one tensor at a time.

The "online" form (bf16 masters, quantized anew at every step) has no place for a scale: it is
mean|W|, so masters of W_q · γ would stand for the smaller scale γ · mean|W_q|. `unpack_checkpoint`
therefore writes masters whose absmean is γ: the online model computes what the packed one does,
and packing gives the same bytes again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experts.checkpoint.errors import CheckpointError
from experts.checkpoint.layout import CONFIG_FILE, METHOD, Layout, read_config
from experts.checkpoint.reading import PackedWeight, Reader, TernaryWeight
from experts.checkpoint.tensors import INDEX_FILE, PICKLES
from experts.checkpoint.writing import (
    SHARD_BYTES,
    ShardWriter,
    choose_linear_class,
    stored_scale,
    whole_folder,
    write_json,
)
from experts.ternary import EPSILON

MASTER_DTYPE = torch.bfloat16
PACKED_CLASS = "packed_linear_class"
"""Our note in an online checkpoint's quantization_config: the linear_class it was packed with.
transformers takes no notice of it, and drops it when it saves the model."""
LEFT_BEHIND = (CONFIG_FILE, INDEX_FILE, "*.safetensors", *PICKLES, "*.gguf", "*.h5", "*.msgpack")

Report = Callable[[int, int], None]
"""Takes the bytes read so far, and all there are."""


def pack_checkpoint(
    source: Path,
    target: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    report: Report = lambda done, total: None,
) -> None:
    """Quantize and pack an online checkpoint, or a plain one that was trained ternary, into a new
    folder. Other tensors keep their dtype, and other files are copied.

    Raises CheckpointError if `source` is damaged or packed already, or if `target` is there.
    """
    reader = Reader(source, plain=True)
    if reader.layout.form == "packed":
        raise CheckpointError(f"{source} is packed already")
    config = _packed_config(source, reader.layout)
    linear_class = config["quantization_config"]["linear_class"]

    def convert(writer: ShardWriter, name: str, weight: PackedWeight) -> None:
        scale = stored_scale(weight.gamma, linear_class)
        writer.add(f"{name}.weight", weight.packed)
        writer.add(f"{name}.weight_scale", scale)
        if weight.bias is None:
            return
        if linear_class == "autobitlinear":
            writer.add(f"{name}.bias", (weight.bias.float() / scale.float()).to(scale.dtype))
        else:
            writer.add(f"{name}.bias", weight.bias)

    _convert(reader, target, config, convert, shard_bytes, report)


def unpack_checkpoint(
    source: Path,
    target: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    report: Report = lambda done, total: None,
) -> None:
    """Write a packed checkpoint as an online one (`masters`), which transformers can train on and
    `pack_checkpoint` packs to the same bytes again, if the scales are bf16.

    Raises CheckpointError if `source` is damaged or not packed, or if `target` is there.
    """
    reader = Reader(source, plain=True)
    if reader.layout.form != "packed":
        raise CheckpointError(f"{source} is not packed: it holds full-precision weights")

    def convert(writer: ShardWriter, name: str, weight: PackedWeight) -> None:
        if float(weight.gamma) < EPSILON:
            raise CheckpointError(
                f"{name}.weight_scale stands for γ = {float(weight.gamma):g}, and the online form"
                f" knows none below {EPSILON:g}"
            )
        writer.add(f"{name}.weight", masters(weight.unpack()))
        if weight.bias is not None:
            writer.add(f"{name}.bias", weight.bias)

    _convert(reader, target, _online_config(source), convert, shard_bytes, report)


def masters(weight: TernaryWeight) -> Tensor:
    """bf16 `[out, in]` whose `experts.ternary.ternarize` is W_q and γ.

    Every nonzero value has the magnitude γ / mean|W_q|. bf16 mostly lacks that number, so the
    first values take the next larger one and the rest the next smaller, in the proportion that
    makes the mean right: to 2⁻⁸ divided by the number of nonzero values, so that from three of
    them on, γ and 1/γ round to the same bf16 number again. An all-zero layer loses its γ.
    """
    nonzero = weight.values != 0
    count = int(nonzero.count_nonzero())
    if not count:
        return torch.zeros(weight.values.shape, dtype=MASTER_DTYPE)
    exact = float(weight.gamma) * weight.values.numel() / count
    low, high = _neighbours(exact)
    larger = round(count * (exact - low) / (high - low)) if high > low else 0
    order = nonzero.flatten().cumsum(0, dtype=torch.int32).reshape(weight.values.shape)
    magnitude = torch.where(order <= larger, high, low).to(MASTER_DTYPE)
    return magnitude.mul_(weight.values)


def _neighbours(number: float) -> tuple[float, float]:
    """The largest bf16 number not above a positive `number`, and the smallest not below."""
    near = torch.tensor(number, dtype=torch.float64).to(MASTER_DTYPE)
    zero, infinity = torch.zeros_like(near), torch.full_like(near, torch.inf)
    if float(near) > number:
        return float(torch.nextafter(near, zero)), float(near)
    if float(near) < number:
        return float(near), float(torch.nextafter(near, infinity))
    return float(near), float(near)


def _convert(
    reader: Reader,
    target: Path,
    config: dict[str, Any],
    convert: Callable[[ShardWriter, str, PackedWeight], None],
    shard_bytes: int,
    report: Report,
) -> None:
    if target.exists():
        raise CheckpointError(f"{target} exists already: delete it, or name another folder")
    total = sum(entry.size for entry in reader.entries.values())
    done = 0
    with whole_folder(target) as part:
        _copy_companions(reader.folder, part)
        write_json(part / CONFIG_FILE, config)
        writer = ShardWriter(part, shard_bytes)
        for name, piece in reader.pieces():
            if isinstance(piece, PackedWeight):
                convert(writer, name, piece)
            else:
                writer.add(name, piece)
            done += reader.stored_bytes(name)
            report(done, total)
        writer.close()


def _packed_config(source: Path, layout: Layout) -> dict[str, Any]:
    config = read_config(source)
    before = dict(config.get("quantization_config") or {"modules_to_not_convert": layout.keep})
    linear_class = before.pop(PACKED_CLASS, choose_linear_class(bool(layout.biased)))
    config["quantization_config"] = {
        **before,
        "quant_method": METHOD,
        "linear_class": linear_class,
        "quantization_mode": "offline",
    }
    return config


def _online_config(source: Path) -> dict[str, Any]:
    config = read_config(source)
    before = config["quantization_config"]
    config["quantization_config"] = {
        **before,
        "linear_class": "autobitlinear",
        "quantization_mode": "online",
        PACKED_CLASS: before.get("linear_class", "bitlinear"),
    }
    return config


def _copy_companions(source: Path, part: Path) -> None:
    """Copy the tokenizer, the model card and the like: files beside the weights."""
    for file in source.iterdir():
        if file.is_file() and not any(file.match(pattern) for pattern in LEFT_BEHIND):
            shutil.copy2(file, part)
