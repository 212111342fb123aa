"""Small random `bitnet` checkpoints, made with transformers' code and none of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, BitNetQuantConfig
from transformers.integrations.bitnet import (
    AutoBitLinear,
    BitLinear,
    WeightQuant,
    pack_weights,
    replace_with_bitnet_linear,
)

from experts.starter.tokenizer import END, PAD, VOCAB_SIZE, build_tokenizer, save_tokenizer

ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "bitnet")
LinearClass = Literal["bitlinear", "autobitlinear"]
Mode = Literal["offline", "online"]


def make(
    folder: Path,
    architecture: str,
    *,
    linear_class: LinearClass = "autobitlinear",
    use_rms_norm: bool = False,
    tie: bool = False,
    seed: int = 0,
    mode: Mode = "offline",
) -> None:
    """Write a random checkpoint of one of `ARCHITECTURES` into `folder`, with a tokenizer.

    Packed (`mode` "offline") or with bf16 master weights ("online", which transformers has for
    `autobitlinear` only). Norms, biases and scales are random too, so that a forgotten one shows.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(_config(architecture, tie), dtype=torch.bfloat16)
    _randomize(model)
    masters = {n: m for n, m in model.named_modules() if type(m) is nn.Linear and n != "lm_head"}
    quantization = BitNetQuantConfig(
        modules_to_not_convert=["lm_head"],
        linear_class=linear_class,
        quantization_mode=mode,
        use_rms_norm=use_rms_norm,
    )
    replace_with_bitnet_linear(model, quantization.modules_to_not_convert, quantization)
    with torch.compiler.set_stance("force_eager"):  # compiling takes longer than all the rest
        for name, master in masters.items():
            _fill(model.get_submodule(name), master, mode)
    model.config.quantization_config = quantization
    model.save_pretrained(folder)
    save_tokenizer(folder)


def _config(architecture: str, tie: bool) -> Any:
    tokenizer = build_tokenizer()
    options = {"hidden_act": "relu2"} if architecture == "bitnet" else {}
    return CONFIG_MAPPING[architecture](
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=0.06,
        tie_word_embeddings=tie,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        **options,
    )


def _randomize(model: nn.Module) -> None:
    """Norms around 1, biases around 0, and embeddings wide enough for logits that differ."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "embed" in name or "lm_head" in name:
                parameter.normal_(0.0, 0.25)


def _fill(layer: Any, master: nn.Linear, mode: Mode) -> None:
    """Give a new layer of transformers (on the meta device) the weights of a plain one."""
    if layer.rms_norm is not None:
        weight = torch.empty(master.in_features, dtype=torch.bfloat16).uniform_(0.5, 1.5)
        layer.rms_norm.weight = nn.Parameter(weight)
    if master.bias is not None:
        bias = master.bias.detach()
        layer.bias = nn.Buffer(bias) if isinstance(layer, BitLinear) else nn.Parameter(bias)
    if mode == "online":
        layer.weight = nn.Parameter(master.weight.detach())
        return
    packed = pack_weights(torch.sign(WeightQuant.apply(master.weight.detach().float())))
    gamma = master.weight.detach().float().abs().mean()
    layer.weight = _frozen(layer, packed)
    scale = gamma if isinstance(layer, AutoBitLinear) else 1.0 / gamma
    layer.weight_scale = nn.Buffer(scale.reshape(1).to(torch.bfloat16))


def _frozen(layer: Any, packed: Tensor) -> Tensor:
    if isinstance(layer, BitLinear):
        return nn.Buffer(packed)
    return nn.Parameter(packed, requires_grad=False)
