"""Ternary checkpoints on disk: the `bitnet` format of Hugging Face, read strictly."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from experts.bitlinear import bit_linear_layers
from experts.errors import ExpertsError
from experts.packing import VALUES_PER_BYTE, PackingError, pack, unpack
from experts.ternary import ternarize, ternary_linear

WEIGHTS_FILE = "model.safetensors"
KEPT_DTYPE = torch.bfloat16
"""Of embeddings, norms and scales."""


class CheckpointError(ExpertsError):
    """A checkpoint that cannot be used; the message names the file or tensor and the fault."""


@dataclass(frozen=True)
class TernaryWeight:
    """One ternary layer: `values` int8 `[out, in]` in {-1, 0, 1}, `gamma` float32 `[]`."""

    values: Tensor
    gamma: Tensor


@dataclass(frozen=True)
class TernaryCheckpoint:
    """A checkpoint as read: transformers' configuration, ternary layers and other tensors."""

    config: Any
    layers: dict[str, TernaryWeight]
    tensors: dict[str, Tensor]


class TernaryLinear(nn.Module):
    """A linear layer with a fixed ternary weight: our reference at inference."""

    values: Tensor
    gamma: Tensor

    def __init__(self, weight: TernaryWeight) -> None:
        super().__init__()
        self.register_buffer("values", weight.values)
        self.register_buffer("gamma", weight.gamma)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return ternary_linear(x, self.values, self.gamma)


def write_checkpoint(
    model: Any, folder: Path, extras: Callable[[Path], None] | None = None
) -> None:
    """Quantize and pack a causal LM with `BitLinear` layers into `folder`, replacing it.

    `extras` may write more files (a tokenizer, a model card). The folder appears at once and
    whole, or, if anything fails, stays as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save_file(_packed_tensors(model), part / WEIGHTS_FILE, metadata={"format": "pt"})
        config = _quantized_config(model.config)
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if extras is not None:
            extras(part)
        part.chmod(0o755)
        _replace_folder(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_checkpoint(folder: Path) -> TernaryCheckpoint:
    """Read and check a `bitnet` checkpoint. Raises CheckpointError with the tensor's name if the
    file is truncated, or a tensor is missing, unknown, of another shape, or not ternary."""
    config = _read_config(folder)
    file = folder / WEIGHTS_FILE
    _check_length(file)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors: {error}") from None
    multiplies = config.quantization_config.get("linear_class") == "autobitlinear"
    layers = {}
    expected = _expected_shapes(config)
    for name, shape in expected.items():
        tensor = _take(tensors, name, file)
        if tensor.dtype == torch.uint8:
            scale = _take(tensors, name + "_scale", file)
            layer = name.removesuffix(".weight")
            layers[layer] = _ternary(name, tensor, scale, shape, multiplies)
        elif list(tensor.shape) != shape:
            raise CheckpointError(f"{name} has shape {list(tensor.shape)} instead of {shape}")
        else:
            tensors[name] = tensor
    unknown = tensors.keys() - expected.keys()
    if unknown:
        raise CheckpointError(f"{file} holds tensors the model has not: {sorted(unknown)}")
    return TernaryCheckpoint(config, layers, tensors)


def load_reference(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model of a checkpoint with our reference numerics, ready to generate."""
    checkpoint = read_checkpoint(folder)
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for name, weight in checkpoint.layers.items():
        model.set_submodule(name, TernaryLinear(weight))
    model.load_state_dict(checkpoint.tensors, strict=False)
    model.tie_weights()
    return model.eval()


def _packed_tensors(model: Any) -> dict[str, Tensor]:
    ternary = dict(bit_linear_layers(model))
    tied = model.config.tie_word_embeddings
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        layer = name.removesuffix(".weight")
        if layer in ternary:
            values, gamma = ternarize(tensor)
            tensors[name] = pack(values)
            tensors[name + "_scale"] = gamma.reshape(1).cpu().to(KEPT_DTYPE)
        elif not (tied and name == "lm_head.weight"):
            tensors[name] = tensor.detach().cpu().to(KEPT_DTYPE).contiguous()
    return tensors


def _quantized_config(config: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    plain["architectures"] = ["LlamaForCausalLM"]
    plain["dtype"] = "bfloat16"
    plain["quantization_config"] = {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "offline",
        "modules_to_not_convert": ["lm_head"],
    }
    return plain


def _replace_folder(part: Path, folder: Path) -> None:
    """Put `part` in the place of `folder`; the old one is moved aside, then deleted."""
    old = part.with_name(part.name + "-old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def _read_config(folder: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no model configuration: {error}") from None
    quantization = getattr(config, "quantization_config", None)
    if not isinstance(quantization, dict) or quantization.get("quant_method") != "bitnet":
        raise CheckpointError(f"{folder} is not a checkpoint in the bitnet format")
    return config


def _expected_shapes(config: Any) -> dict[str, list[int]]:
    """Names and unpacked shapes of the parameters that the configuration asks for."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {name: list(p.shape) for name, p in model.named_parameters()}


def _check_length(file: Path) -> None:
    """Refuse a file that ends before its last tensor, with the first tensor that is cut."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        ends = {n: t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"}
    except (OSError, struct.error, ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors: {error}") from None
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        if 8 + length + end > size:
            raise CheckpointError(f"{file} is truncated: it ends before the end of {name}")


def _take(tensors: dict[str, Tensor], name: str, file: Path) -> Tensor:
    try:
        return tensors.pop(name)
    except KeyError:
        raise CheckpointError(f"{file} lacks the tensor {name}") from None


def _ternary(
    name: str, packed: Tensor, scale: Tensor, shape: list[int], multiplies: bool
) -> TernaryWeight:
    if [VALUES_PER_BYTE * packed.shape[0], *packed.shape[1:]] != shape:
        raise CheckpointError(f"{name} is packed as {list(packed.shape)}, which is not {shape}")
    if scale.numel() != 1 or not bool(torch.isfinite(scale).all()) or float(scale) <= 0:
        raise CheckpointError(f"{name}_scale is not one positive number")
    try:
        values = unpack(packed)
    except PackingError as error:
        raise CheckpointError(f"{name}: {error}") from None
    gamma = scale.float().reshape(())
    return TernaryWeight(values, gamma if multiplies else 1.0 / gamma)
