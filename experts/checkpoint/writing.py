"""Writing checkpoints: shard by shard, and a folder that appears at once and whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from experts.bitlinear import BitLinear, bit_linear_layers
from experts.checkpoint.layout import CONFIG_FILE, METHOD, LinearClass
from experts.checkpoint.tensors import INDEX_FILE, WEIGHTS_FILE
from experts.packing import pack
from experts.ternary import ternarize

KEPT_DTYPE = torch.bfloat16
"""Of embeddings, norms, biases and scales."""
SHARD_BYTES = 5_000_000_000


class ShardWriter:
    """Writes tensors into `folder` as they come, holding no more than a shard of them."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._held: dict[str, Tensor] = {}
        self._held_bytes = 0
        self._shards: list[list[str]] = []
        self._bytes = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Take a contiguous tensor on the CPU; a shard that it would overfill is written first."""
        if self._held and self._held_bytes + tensor.nbytes > self._shard_bytes:
            self._write()
        self._held[name] = tensor
        self._held_bytes += tensor.nbytes

    def close(self) -> None:
        """Write what is held; one file gets its plain name, several an index."""
        self._write()
        if len(self._shards) == 1:
            self._part(0).rename(self._folder / WEIGHTS_FILE)
            return
        places: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05}-of-{len(self._shards):05}.safetensors"
            self._part(number).rename(self._folder / file)
            places |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self._bytes}, "weight_map": places}
        write_json(self._folder / INDEX_FILE, index)

    def _write(self) -> None:
        file = self._part(len(self._shards))
        save_file(self._held, file, metadata={"format": "pt"})
        file.chmod(0o644)  # safetensors writes for the owner alone; a container reads as another
        self._shards.append(list(self._held))
        self._bytes += self._held_bytes
        self._held, self._held_bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self._folder / f"shard-{number}.part"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` when the block ends, and
    vanishes if it fails. Weights are replaced; other files that the new folder has not are kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield part
        part.chmod(0o755)
        _replace_folder(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_checkpoint(
    model: Any, folder: Path, extras: Callable[[Path], None] | None = None
) -> None:
    """Quantize and pack a causal LM with `BitLinear` layers into `folder`, replacing it.

    `extras` may write more files (a tokenizer, a model card). The folder appears at once and
    whole, or, if anything fails, stays as it was.
    """
    with whole_folder(folder) as part:
        writer = ShardWriter(part)
        for name, tensor in _packed_tensors(model):
            writer.add(name, tensor)
        writer.close()
        write_json(part / CONFIG_FILE, _quantized_config(model))
        if extras is not None:
            extras(part)


def choose_linear_class(biased: bool) -> LinearClass:
    """`autobitlinear`, which computes in float32, except for layers with biases: there it would
    want them divided by γ, which rounds them."""
    return "bitlinear" if biased else "autobitlinear"


def stored_scale(gamma: Tensor, linear_class: LinearClass) -> Tensor:
    """`weight_scale` as it stands in the file, bf16 `[1]`."""
    scale = gamma if linear_class == "autobitlinear" else 1.0 / gamma
    return scale.reshape(1).to(KEPT_DTYPE)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write JSON for people to read."""
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _packed_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    ternary = dict(bit_linear_layers(model))
    tied = model.all_tied_weights_keys
    linear_class = _linear_class(model)
    for name, tensor in model.state_dict().items():
        layer = name.removesuffix(".weight")
        if layer in ternary:
            values, gamma = ternarize(tensor)
            yield name, pack(values)
            yield name + "_scale", stored_scale(gamma.cpu(), linear_class)
        elif name not in tied:
            yield name, tensor.detach().cpu().to(KEPT_DTYPE).contiguous()


def _linear_class(model: Any) -> LinearClass:
    return choose_linear_class(any(x.bias is not None for _, x in bit_linear_layers(model)))


def _quantized_config(model: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    plain["architectures"] = [type(model).__name__]
    plain["dtype"] = "bfloat16"
    plain["quantization_config"] = {
        "quant_method": METHOD,
        "linear_class": _linear_class(model),
        "quantization_mode": "offline",
        "modules_to_not_convert": [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and not isinstance(module, BitLinear)
        ],
    }
    return plain


def _replace_folder(part: Path, folder: Path) -> None:
    """Put `part` in the place of `folder`; the old one is moved aside, then deleted, but for what
    did not belong to its checkpoint."""
    old = part.with_name(part.name + "-old")
    if not folder.exists():
        os.replace(part, folder)
        return
    os.replace(folder, old)
    try:
        os.replace(part, folder)
    except BaseException:
        os.replace(old, folder)
        raise
    for path in old.iterdir():
        if not path.match("*.safetensors*") and not (folder / path.name).exists():
            os.replace(path, folder / path.name)
    shutil.rmtree(old, ignore_errors=True)
