"""What a checkpoint's `config.json` asks for: which layers are ternary, which tensors there are.

The names and shapes come from transformers' own model classes and its BitNet conversion
(`integrations/bitnet.py`), built without memory for weights.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitNetQuantConfig
from transformers.integrations.bitnet import AutoBitLinear, BitLinear, replace_with_bitnet_linear
from transformers.quantizers.base import HfQuantizer

from experts.checkpoint.errors import CheckpointError

CONFIG_FILE = "config.json"
METHOD = "bitnet"
Form = Literal["packed", "online", "plain"]
"""Packed ternary weights; full-precision weights that transformers quantizes as it computes; full
precision without a word about quantization."""
LinearClass = Literal["bitlinear", "autobitlinear"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """What a checkpoint must hold.

    `config` is transformers' configuration, `quantization` its `BitNetQuantConfig`, `keep` the
    modules that stay as they are. `ternary` maps a layer's name to `[out, in]`; `biased` are
    those that have a bias. `kept` maps every other tensor's name to its shape, `tied` a tensor
    that may be left out to the one it equals. `ignored` matches what nobody reads.
    """

    config: Any
    quantization: Any
    form: Form
    keep: list[str]
    ternary: dict[str, Shape]
    biased: frozenset[str]
    kept: dict[str, Shape]
    tied: dict[str, str]
    ignored: re.Pattern[str]

    @property
    def multiplies(self) -> bool:
        """Whether `weight_scale` is γ, which `autobitlinear` multiplies by, and not 1/γ."""
        return bool(self.quantization.linear_class == "autobitlinear")

    @property
    def scales_bias(self) -> bool:
        """Whether γ multiplies the stored bias too: transformers' `AutoBitLinear` with packed
        weights computes (W_q · x + b) · γ, where online it computes γ · W_q · x + b."""
        return self.form == "packed" and self.multiplies

    @property
    def norm_eps(self) -> float | None:
        """ε of the RMSNorm before every ternary layer (`use_rms_norm`), None where is none."""
        return self.quantization.rms_norm_eps if self.quantization.use_rms_norm else None


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` as it stands."""
    file = folder / CONFIG_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing: {folder} is not a checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a model's configuration: it is no JSON object")
    return content


def read_layout(folder: Path, plain: bool = False) -> Layout:
    """What `folder` must hold. `plain` also takes a configuration without quantization_config:
    then the layers are ternary that transformers would convert."""
    content = read_config(folder).get("quantization_config")
    form: Form
    if content is None and plain:
        form = "plain"
        quantization = BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="online")
    else:
        quantization, form = _read_quantization(folder / CONFIG_FILE, content)
    try:
        # transformers and its configurations raise errors of every kind
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        return _layout(config, model, quantization, form)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{folder / CONFIG_FILE} describes no ternary language model that transformers has:"
            f" {reason}"
        ) from None


def _read_quantization(file: Path, content: Any) -> tuple[Any, Form]:
    method = content.get("quant_method") if isinstance(content, dict) else None
    if method != METHOD:
        found = "it has no quantization_config" if content is None else f"quant_method is {method}"
        raise CheckpointError(f"{file} is not of a checkpoint in the {METHOD} format: {found}")
    kept = content.get("modules_to_not_convert")
    if kept is not None and not (
        isinstance(kept, list) and all(isinstance(name, str) for name in kept)
    ):
        raise CheckpointError(f"{file}: modules_to_not_convert is not a list of names")
    try:
        quantization = BitNetQuantConfig(**content)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from None
    # transformers' `bitlinear` is packed whatever the mode says
    mode = (quantization.linear_class, quantization.quantization_mode)
    return quantization, "online" if mode == ("autobitlinear", "online") else "packed"


def _layout(config: Any, model: Any, quantization: Any, form: Form) -> Layout:
    tied = dict(model.all_tied_weights_keys)
    ignored = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq$"]
    keep = HfQuantizer.get_modules_to_not_convert(
        model, quantization.modules_to_not_convert, model._keep_in_fp32_modules
    )
    tied_layers = [name.removesuffix(".weight") for name in tied]
    replace_with_bitnet_linear(model, [*keep, *tied_layers], quantization)
    ternary: dict[str, Shape] = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, AutoBitLinear | BitLinear)
    }
    if not ternary:
        raise ValueError("modules_to_not_convert leaves no ternary layer")
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    biased = frozenset(name for name in ternary if f"{name}.bias" in shapes)
    own = {f"{name}.{part}" for name in ternary for part in ("weight", "weight_scale", "bias")}
    kept = {n: shape for n, shape in shapes.items() if n not in own and n not in tied}
    pattern = re.compile("|".join(ignored))
    return Layout(config, quantization, form, sorted(keep), ternary, biased, kept, tied, pattern)
