"""The quantization method against the reference, without an engine: parts, ranks, scales, norms,
damage, and what runs on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from experts.checkpoint import CheckpointError
from experts.packing import pack, pack_rows, unpack_rows
from experts.ternary import ternarize, ternary_linear
from tests.experts.bitnet_checkpoints import make

pytest.importorskip("vllm")

PARTS = (("q", 24, 0.02), ("k", 12, 1.0), ("v", 12, 7.0))
"""Rows whose quarters are not the merged matrix's; spreads for scales that differ."""
INPUTS = 48
MAPPING = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


def method(**config: Any) -> Any:
    from experts.vllm_plugin.linear import BitNetLinearMethod
    from experts.vllm_plugin.quantization import BitNetConfig

    made = BitNetConfig.from_config({"linear_class": "autobitlinear"} | config)
    made.packed_modules_mapping = MAPPING
    return BitNetLinearMethod(made)


def layer(way: Any, sizes: list[int], inputs: int, whole: int | None = None, **more: Any) -> Any:
    """A layer as vLLM makes one: `whole` inputs of which this rank has `inputs`."""
    made = torch.nn.Module()
    attributes = {"prefix": "m.qkv_proj" if len(sizes) == 3 else "m.o_proj", **more}
    attributes |= {"output_size_per_partition": sum(sizes), "params_dtype": torch.float32}
    for name, value in attributes.items():
        setattr(made, name, value)
    way.create_weights(made, inputs, sizes, whole or inputs, 0, torch.float32)
    made.bias = None
    return made


def load(made: Any, part: str | None, weight: Tensor, linear_class: str = "autobitlinear") -> None:
    values, gamma = ternarize(weight)
    scale = gamma if linear_class == "autobitlinear" else 1 / gamma
    made.weight.weight_loader(made.weight, pack(values), part)
    made.weight_scale.weight_loader(made.weight_scale, scale.reshape(1), part)


def random_parts() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {part: torch.randn(size, INPUTS) * spread for part, size, spread in PARTS}


def merged(way: Any, weights: dict[str, Tensor], linear_class: str = "autobitlinear") -> Any:
    made = layer(way, [size for _, size, _ in PARTS], INPUTS)
    for part in ("v", "q", "k"):
        load(made, part, weights[part], linear_class)
    return made


def values_of(made: Any) -> Tensor:
    matrix = made.matrices[0]
    return unpack_rows(made.weight.data, matrix.rows)


def test_register_twice() -> None:
    from vllm.model_executor.layers.quantization import get_quantization_config
    from vllm.model_executor.models import ModelRegistry

    from experts.vllm_plugin import register
    from experts.vllm_plugin.quantization import BitNetConfig

    register()
    register()
    assert get_quantization_config("bitnet") is BitNetConfig
    assert "BitNetForCausalLM" in ModelRegistry.get_supported_archs()


@given(st.integers(1, 30), st.integers(1, 9), st.data())
@settings(deadline=None, max_examples=500)
def test_rows_are_copied_from_packed_to_packed(rows: int, quads: int, data: Any) -> None:
    from experts.vllm_plugin.rows import copy_rows

    count = data.draw(st.integers(1, min(rows, 4 * quads)))
    start = data.draw(st.integers(0, rows - count))
    first = data.draw(st.integers(0, 4 * quads - count))
    torch.manual_seed(rows * quads)
    target = torch.randint(-1, 2, (rows, 5), dtype=torch.int8)
    source = torch.randint(-1, 2, (4 * quads, 5), dtype=torch.int8)
    packed = pack_rows(target)
    copy_rows(packed, start, pack(source), first, count)
    target[start : start + count] = source[first : first + count]
    assert torch.equal(packed, pack_rows(target))


@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_merged_parts_have_their_own_scale(linear_class: str, dtype: torch.dtype) -> None:
    way, weights = method(linear_class=linear_class), random_parts()
    made = merged(way, weights, linear_class)
    way.process_weights_after_loading(made)
    assert {name for name, _ in made.named_parameters()} == {"weight", "gamma"}  # no second copy
    assert made.weight.shape == (12, INPUTS)
    x = torch.randn(5, INPUTS).to(dtype)
    expected = torch.cat([ternary_linear(x, *ternarize(weights[p])) for p in ("q", "k", "v")], -1)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    assert torch.allclose(way.apply(made, x), expected, rtol=tolerance)
    assert way.apply(made, x).dtype == dtype
    bias = torch.ones(48).to(dtype)
    assert torch.allclose(way.apply(made, x, bias), expected + bias, rtol=tolerance, atol=1e-2)


def test_each_part_has_its_own_norm() -> None:
    way, weights = method(use_rms_norm=True, rms_norm_eps=1e-3), random_parts()
    made = merged(way, weights)
    norms = {part: torch.rand(INPUTS) + 0.5 for part in weights}
    for part, norm in norms.items():
        made.rms_norm.weight.weight_loader(made.rms_norm.weight, norm, part)
    way.process_weights_after_loading(made)
    x, bias = torch.randn(5, INPUTS), torch.randn(48)
    normal = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3)
    expected = [ternary_linear(normal * norms[p], *ternarize(weights[p])) for p in ("q", "k", "v")]
    assert torch.allclose(way.apply(made, x, bias), torch.cat(expected, -1) + bias, atol=1e-4)


@pytest.mark.parametrize("rank", [0, 1])
def test_each_rank_takes_its_share(rank: int) -> None:
    weight = torch.randn(12, 24)  # six rows a rank: no multiple of four
    values, _ = ternarize(weight)
    way = method()
    column = layer(way, [6], 24, tp_rank=rank, tp_size=2)
    load(column, None, weight)
    assert torch.equal(values_of(column), values[6 * rank : 6 * rank + 6])
    row = layer(way, [12], 12, 24, tp_rank=rank, tp_size=2)
    load(row, None, weight)
    assert torch.equal(values_of(row)[:, :12], values[:, 12 * rank : 12 * rank + 12])
    assert not values_of(row)[:, 12:].any()


def test_key_value_heads_fewer_than_ranks_are_shared() -> None:
    weight = torch.randn(24, 24)
    values, _ = ternarize(weight)
    made = layer(method(), [8, 12, 12], 24, tp_rank=3, tp_size=4, num_kv_head_replicas=2)
    load(made, "k", weight)
    assert torch.equal(values_of(made)[8:20], values[12:])


def test_online_weights_are_quantized_as_they_are_loaded() -> None:
    way, weights = method(quantization_mode="online"), random_parts()
    made = layer(way, [size for _, size, _ in PARTS], INPUTS)
    for part, weight in weights.items():
        made.weight.weight_loader(made.weight, weight, part)
    way.process_weights_after_loading(made)
    packed = merged(method(), weights)
    method().process_weights_after_loading(packed)
    assert torch.equal(made.weight, packed.weight)
    assert torch.equal(made.gamma, packed.gamma)


@pytest.mark.parametrize(
    ("config", "scaled"),
    [({}, True), ({"linear_class": "bitlinear"}, False), ({"quantization_mode": "online"}, False)],
)
def test_the_bias_is_scaled_where_transformers_scales_it(
    config: dict[str, Any], scaled: bool
) -> None:
    way = method(**config)
    assert way.config.scales_bias == scaled
    made = layer(way, [8], 16)
    weight = torch.randn(8, 16)
    if way.config.online:
        made.weight.weight_loader(made.weight, weight)
    else:
        load(made, None, weight, way.config.linear_class)
    made.bias = torch.nn.Parameter(torch.ones(8), requires_grad=False)
    way.process_weights_after_loading(made)
    expected = ternarize(weight)[1] if scaled else torch.tensor(1.0)
    assert torch.allclose(made.bias, expected.expand(8))


SOUND = pack(ternarize(torch.randn(12, INPUTS))[0])
DAMAGE: dict[str, tuple[str, Any, str]] = {
    "a value that is not ternary": ("weight", SOUND | 3, r"k_proj\.weight.*not ternary"),
    "rows missing": ("weight", SOUND[:2], r"k_proj\.weight.*\[2, 48\]"),
    "columns missing": ("weight", SOUND[:, :40], r"k_proj\.weight.*\[3, 40\]"),
    "another dtype": ("weight", SOUND.float(), r"k_proj\.weight.*float32"),
    "a scale of zero": ("weight_scale", torch.zeros(1), r"k_proj\.weight_scale.*positive"),
    "a scale below zero": ("weight_scale", -torch.ones(1), r"k_proj\.weight_scale.*positive"),
    "an infinite scale": ("weight_scale", torch.tensor(torch.inf), r"k_proj\.weight_scale"),
    "a scale that is NaN": ("weight_scale", torch.tensor(torch.nan), r"k_proj\.weight_scale"),
    "two scales": ("weight_scale", torch.ones(2), r"k_proj\.weight_scale"),
    "a norm too short": ("norm", torch.ones(40), r"k_proj\.rms_norm\.weight.*\[40\]"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_with_the_tensors_name(kind: str) -> None:
    name, tensor, message = DAMAGE[kind]
    made = layer(method(use_rms_norm=True), [24, 12, 12], INPUTS)
    param = made.rms_norm.weight if name == "norm" else getattr(made, name)
    with pytest.raises(CheckpointError, match=message):
        param.weight_loader(param, tensor, "k")


@pytest.mark.parametrize("missing", ["weight", "weight_scale"])
def test_a_part_that_never_came_is_noticed(missing: str) -> None:
    way = method()
    made = layer(way, [24, 12, 12], INPUTS)
    for part, weight in random_parts().items():
        if part != "v" or missing != "weight":
            made.weight.weight_loader(made.weight, pack(ternarize(weight)[0]), part)
        if part != "v" or missing != "weight_scale":
            made.weight_scale.weight_loader(made.weight_scale, torch.ones(1), part)
    with pytest.raises(CheckpointError, match=rf"lacks the tensor m\.v_proj\.{missing}$"):
        way.process_weights_after_loading(made)


@pytest.mark.parametrize("tensor", ["model.norm.weight", "model.layers.1.self_attn.q_proj.bias"])
def test_tensors_that_are_not_ternary_are_missed_too(tmp_path: Path, tensor: str) -> None:
    from safetensors.torch import load_file, save_file

    from experts.vllm_plugin.quantization import BitNetConfig

    make(tmp_path / "a", "qwen2", linear_class="bitlinear")
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    del tensors[tensor]
    save_file(tensors, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    config = BitNetConfig.from_config({})
    config.maybe_update_config(str(tmp_path / "a"))
    with pytest.raises(CheckpointError, match=f"lacks the tensor {tensor}"):
        config.get_quant_method(torch.nn.Module(), "model.layers.0.self_attn.qkv_proj")


def test_what_is_kept() -> None:
    way = method(modules_to_not_convert=["lm_head", "layers.1.mlp", "k_proj"])
    config = way.config
    assert config.get_quant_method(torch.nn.Embedding(2, 2), "model.embed_tokens") is None
    assert config._is_ternary("layers.0.mlp.gate_up_proj")
    assert not config._is_ternary("layers.1.mlp.gate_up_proj")
    with pytest.raises(CheckpointError, match="all of them or none"):
        config._is_ternary("layers.0.self_attn.qkv_proj")


@pytest.mark.parametrize("config", [{"quantization_mode": "half"}, {"linear_class": "other"}])
def test_unknown_settings_are_refused(config: dict[str, Any]) -> None:
    from experts.vllm_plugin.quantization import BitNetConfig

    with pytest.raises(CheckpointError, match="bitnet"):
        BitNetConfig.from_config(config)


NORM = torch.linspace(0.5, 1.5, 256)


def cuda_layer(device: str, dtype: torch.dtype, **config: Any) -> tuple[Any, Any, Tensor]:
    """The GPU's method, a loaded layer of shapes that humming takes, and its weight."""
    from experts.vllm_plugin.cuda import CudaBitNetLinearMethod

    way = CudaBitNetLinearMethod(method(**config).config)
    torch.manual_seed(0)
    weight = torch.randn(256, 256)
    with torch.device(device):
        made = layer(way, [256], 256, has_bias=False)
    made.params_dtype = dtype
    load(made, None, weight)
    if config.get("use_rms_norm"):
        made.rms_norm.weight.weight_loader(made.rms_norm.weight, NORM)
    way.process_weights_after_loading(made)
    return way, made, weight


@pytest.mark.parametrize(("choice", "tolerance"), [("int8", 0.005), ("bf16", 0.02)])
def test_without_humming_a_gpu_uses_plain_torch(
    monkeypatch: pytest.MonkeyPatch, choice: str, tolerance: float
) -> None:
    from experts.vllm_plugin import cuda

    monkeypatch.setenv(cuda.OPTION, choice)
    cuda.activations.cache_clear()
    way, made, weight = cuda_layer("cpu", torch.bfloat16)
    assert not hasattr(made, "humming_config")
    x = torch.randn(5, 256).bfloat16()
    expected = ternary_linear(x.float(), *ternarize(weight))
    error = (way.apply(made, x).float() - expected).norm() / expected.norm()
    assert error < tolerance
    monkeypatch.setenv(cuda.OPTION, "int4")
    cuda.activations.cache_clear()
    with pytest.raises(CheckpointError, match="int8 or bf16"):
        cuda.activations()


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Lets layers be made for humming on the CPU; what happened then, in order."""
    import vllm.model_executor.layers.quantization.utils.humming as linear
    import vllm.utils.humming as humming

    from experts.vllm_plugin import cuda

    seen: list[str] = []

    def to_humming(weights: Any, dtype: torch.dtype, activations: str) -> Any:
        seen.append("made")
        return None, None, {"weight": torch.zeros(1), "weight_scale": torch.zeros(1)}

    def forward(layer: Any, x: Tensor, *, compute_config: str, **others: Any) -> Tensor:
        assert '"gemm_type": "dense"' in compute_config
        return x * 2

    monkeypatch.setattr(humming, "_EXPORTS", {"humming_forward": "json:dumps"})
    monkeypatch.setattr(humming, "_patch_humming", lambda: seen.append("patched"))
    monkeypatch.setattr(humming, "create_humming_locks", lambda device: torch.zeros(8))
    monkeypatch.setattr(cuda, "to_humming", to_humming)
    monkeypatch.setattr(linear, "apply_humming_linear", forward)
    vars(humming).pop("humming_forward", None)
    yield seen
    vars(humming).pop("humming_forward", None)


def test_vllm_patches_humming_before_a_layer_is_made(happened: list[str]) -> None:
    """Otherwise what humming asks about the GPU would have to be traced, which Dynamo cannot."""
    cuda_layer("cpu", torch.bfloat16)
    assert happened == ["patched", "made"]


@pytest.mark.usefixtures("happened")
def test_a_layer_on_a_gpu_can_be_traced_whole() -> None:
    """As vLLM compiles models there: what Dynamo cannot trace ends the worker."""
    way, made, _ = cuda_layer("cpu", torch.bfloat16)
    product = torch.compile(lambda x: way.apply(made, x), fullgraph=True, backend="eager")
    x = torch.ones(3, 256, dtype=torch.bfloat16)
    assert torch.equal(product(x), x * 2)


def test_norms_of_its_own_keep_a_layer_from_humming(happened: list[str]) -> None:
    """humming knows of no norm; also a layer of one matrix, which it would take, has one."""
    way, made, weight = cuda_layer("cpu", torch.float32, use_rms_norm=True)
    assert not happened
    x = torch.randn(5, 256)
    normed = torch.nn.functional.rms_norm(x, [256], NORM, way.config.norm_eps)
    expected = ternary_linear(normed, *ternarize(weight))
    assert torch.allclose(way.apply(made, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_humming_on_a_gpu() -> None:
    way, made, weight = cuda_layer("cuda", torch.bfloat16)
    assert hasattr(made, "humming_config"), "humming refused the layer: see the warning"
    for tokens in (1, 7, 64):
        x = torch.randn(tokens, 256).bfloat16()
        expected = ternary_linear(x.float(), *ternarize(weight))
        error = (way.apply(made, x.cuda()).float().cpu() - expected).norm() / expected.norm()
        assert error < 0.005
