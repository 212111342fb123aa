"""A random Llama on disk twice, with the same weights: packed ternary, and in bf16.

Written tensor by tensor, one file for each block: the model is never in memory as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from experts.packing import pack
from tests.benchmarks.shapes import Model

Precision = Literal["ternary", "bf16"]
HEAD = 64
"""Width of one attention head."""


@dataclass(frozen=True)
class Size:
    """A model that can be made: `context` is the longest sequence."""

    model: Model
    context: int = 512


SIZES = {
    "1b": Size(Model("1.1B", 2048, 5632, 256, 22, 32_000)),  # TinyLlama's shape
    "135m": Size(Model("135M", 576, 1536, 192, 30, 49_152, tied=True)),  # SmolLM2-135M's shape
    "small": Size(Model("small", 256, 640, 128, 2, 1_000)),
}


def write_model(
    size: Size, precision: Precision, folder: Path, seed: int = 0, table_seed: int = 0
) -> None:
    """Write the checkpoint of `size` into the new `folder`: the Hugging Face `bitnet` format, or
    the same weights γ·W_q in bf16. `table_seed` decides embedding and head, `seed` the rest."""
    folder.mkdir(parents=True)
    index: dict[str, str] = {}
    for i, tensors in enumerate(_files(size.model, precision, seed, table_seed)):
        name = f"model-{i:05d}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    config = json.dumps(_config(size, precision), indent=2)
    (folder / "config.json").write_text(config + "\n", encoding="utf-8")


def _files(
    model: Model, precision: Precision, seed: int, table_seed: int
) -> Iterator[dict[str, Tensor]]:
    """The tensors of each file; the same seeds give both precisions the same weights."""
    tables = torch.Generator().manual_seed(table_seed)
    generator = torch.Generator().manual_seed(seed)

    def table() -> Tensor:
        return torch.randn(model.vocabulary, model.hidden, generator=tables).bfloat16() / 8

    def norm() -> Tensor:
        return (1 + torch.randn(model.hidden, generator=generator) / 16).bfloat16()

    yield {"model.embed_tokens.weight": table()}
    if not model.tied:
        yield {"lm_head.weight": table()}
    yield {"model.norm.weight": norm()}
    for layer in range(model.layers):
        block = f"model.layers.{layer}"
        tensors = {f"{block}.{name}.weight": norm() for name in NORMS}
        for name, (out, inputs) in _linear(model).items():
            values = torch.randint(-1, 2, (out, inputs), dtype=torch.int8, generator=generator)
            gamma = torch.tensor([inputs**-0.5], dtype=torch.bfloat16)
            if precision == "ternary":
                tensors[f"{block}.{name}.weight"] = pack(values)
                tensors[f"{block}.{name}.weight_scale"] = gamma
            else:
                tensors[f"{block}.{name}.weight"] = values.bfloat16() * gamma
        yield tensors


NORMS = ("input_layernorm", "post_attention_layernorm")


def _linear(model: Model) -> dict[str, tuple[int, int]]:
    hidden, mlp, kv = model.hidden, model.mlp, model.kv
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }


def _config(size: Size, precision: Precision) -> dict[str, Any]:
    model = size.model
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": model.hidden,
        "intermediate_size": model.mlp,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.hidden // HEAD,
        "num_key_value_heads": model.kv // HEAD,
        "head_dim": HEAD,
        "vocab_size": model.vocabulary,
        "max_position_embeddings": size.context,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": model.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16",
    }
    if precision == "ternary":
        config["quantization_config"] = {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": ["lm_head"],
        }
    return config
