"""The quantization method against the reference, without an engine: parts, ranks, scales."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experts.packing import pack
from experts.ternary import ternarize, ternary_linear

pytest.importorskip("vllm")


def method(linear_class: str = "autobitlinear") -> Any:
    from experts.vllm_plugin.quantization import BitNetConfig, BitNetLinearMethod

    return BitNetLinearMethod(BitNetConfig.from_config({"linear_class": linear_class}))


def layer(sizes: list[int], inputs: int, way: Any, **attributes: int) -> Any:
    made = torch.nn.Module()
    for name, number in attributes.items():
        setattr(made, name, number)
    way.create_weights(made, inputs, sizes, inputs, sum(sizes), torch.bfloat16)
    return made


def load(made: Any, part: str | int | None, weight: torch.Tensor, linear_class: str) -> None:
    values, gamma = ternarize(weight)
    scale = gamma if linear_class == "autobitlinear" else 1 / gamma
    arguments = () if part is None else (part,)
    made.weight.weight_loader(made.weight, pack(values), *arguments)
    made.weight_scale.weight_loader(made.weight_scale, scale.reshape(1), *arguments)


def test_register_twice() -> None:
    from vllm.model_executor.layers.quantization import get_quantization_config

    from experts.vllm_plugin import register
    from experts.vllm_plugin.quantization import BitNetConfig

    register()
    register()
    assert get_quantization_config("bitnet") is BitNetConfig


@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_parts_have_their_own_scale(linear_class: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    way = method(linear_class)
    made = layer([32, 16, 16], 48, way)
    weights = {part: torch.randn(size, 48) * spread for part, size, spread in PARTS}
    for part in ("v", "q", "k"):
        load(made, part, weights[part], linear_class)
    way.process_weights_after_loading(made)
    x = torch.randn(5, 48).to(dtype)
    expected = torch.cat([ternary_linear(x, *ternarize(weights[p])) for p in ("q", "k", "v")], -1)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    assert torch.allclose(way.apply(made, x), expected, rtol=tolerance)
    assert way.apply(made, x).dtype == dtype
    bias = torch.ones(64).to(dtype)
    assert torch.allclose(way.apply(made, x, bias), expected + bias, rtol=tolerance, atol=1e-2)


PARTS = (("q", 32, 0.02), ("k", 16, 1.0), ("v", 16, 7.0))


def test_each_rank_takes_its_share() -> None:
    weight = torch.randn(32, 24)
    values, _ = ternarize(weight)
    way = method()
    column = layer([16], 24, way, tp_rank=1)
    load(column, None, weight, "autobitlinear")
    assert torch.equal(column.weight, values[16:])
    row = layer([32], 12, way, tp_rank=1)
    load(row, None, weight, "autobitlinear")
    assert torch.equal(row.weight, values[:, 12:])
    replicated = layer([16, 32, 32], 24, way, tp_rank=1, num_kv_head_replicas=2)
    load(replicated, "k", weight, "autobitlinear")
    assert torch.equal(replicated.weight[16:48], values)


def test_what_is_quantized() -> None:
    from experts.vllm_plugin.quantization import BitNetConfig

    config = BitNetConfig.from_config({"modules_to_not_convert": ["lm_head"]})
    assert config.linear_class == "bitlinear"
    assert config.get_quant_method(torch.nn.Embedding(2, 2), "model.embed_tokens") is None


@pytest.mark.parametrize(
    "config",
    [{"quantization_mode": "online"}, {"use_rms_norm": True}, {"linear_class": "other"}],
)
def test_other_variants_are_refused(config: dict[str, Any]) -> None:
    from experts.vllm_plugin.quantization import BitNetConfig

    with pytest.raises(ValueError, match="bitnet"):
        BitNetConfig.from_config(config)
