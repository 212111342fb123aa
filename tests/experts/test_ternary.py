"""Reference numerics: against transformers' own BitNet code, and by property."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experts.bitlinear import BitLinear, set_strength, swap_linear_layers
from experts.ternary import (
    EPSILON,
    absmean,
    fake_quantize_activations,
    fake_quantize_weight,
    quantize_activations,
    ternarize,
    ternary_linear,
)

SHAPES = st.tuples(st.integers(1, 33), st.integers(1, 65), st.integers(0, 10_000))


def matrix(rows: int, columns: int, seed: int, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * spread


@given(SHAPES)
@settings(deadline=None, max_examples=50)
def test_ternary_values_and_scale(shape: tuple[int, int, int]) -> None:
    weight = matrix(*shape, spread=0.02)
    values, gamma = ternarize(weight)
    assert values.dtype == torch.int8
    assert set(values.unique().tolist()) <= {-1, 0, 1}
    assert gamma == weight.abs().mean().clamp(min=EPSILON)
    far = (weight.abs() - gamma / 2).abs() > 1e-6
    assert torch.equal((values != 0)[far], (weight.abs() > gamma / 2)[far])


@given(SHAPES)
@settings(deadline=None, max_examples=50)
def test_fake_quantization_is_what_transformers_does(shape: tuple[int, int, int]) -> None:
    from transformers.integrations.bitnet import ActQuant, WeightQuant

    weight = matrix(*shape, spread=0.05)
    for dtype in (torch.float32, torch.bfloat16):
        w = weight.to(dtype)
        theirs = torch._dynamo.disable(WeightQuant.forward)(None, w)
        assert torch.equal(fake_quantize_weight(w), theirs)
        theirs = torch._dynamo.disable(ActQuant.forward)(None, w)
        assert torch.equal(fake_quantize_activations(w), theirs)


@given(SHAPES, st.sampled_from([torch.float32, torch.bfloat16]))
@settings(deadline=None, max_examples=50)
def test_activations_as_transformers(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x = matrix(*shape).to(dtype)
    x_q, scale = quantize_activations(x)
    expected_scale = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
    assert torch.equal(scale, expected_scale)
    assert torch.equal(x_q, (x * expected_scale).round().clamp(-128, 127).to(torch.int8))


def test_zero_input_gives_zero() -> None:
    gamma = torch.tensor(EPSILON)
    assert not ternary_linear(torch.zeros(2, 8), torch.ones(4, 8).to(torch.int8), gamma).any()
    assert absmean(torch.zeros(4, 4)) == EPSILON


@given(SHAPES, st.integers(1, 9))
@settings(deadline=None, max_examples=50)
def test_linear_is_the_integer_product(shape: tuple[int, int, int], tokens: int) -> None:
    rows, columns, seed = shape
    values, gamma = ternarize(matrix(rows, columns, seed))
    x = matrix(tokens, columns, seed + 1, 3.0)
    x_q, scale = quantize_activations(x)
    product = x_q.long() @ values.long().t()
    expected = product.double() * gamma.double() / scale.double()
    bias = torch.arange(rows).float()
    assert torch.allclose(ternary_linear(x, values, gamma).double(), expected, rtol=1e-6, atol=1e-9)
    with_bias = ternary_linear(x, values, gamma, bias)
    assert torch.allclose(with_bias, ternary_linear(x, values, gamma) + bias)
    per_row = ternary_linear(x, values, gamma.repeat(rows))
    assert torch.equal(per_row, ternary_linear(x, values, gamma))


def test_bitlinear_computes_w158a8_and_passes_gradients_through() -> None:
    layer = BitLinear(24, 12)
    x = matrix(5, 24, 1).requires_grad_()
    y = layer(x)
    assert torch.allclose(y, ternary_linear(x, *ternarize(layer.weight)), atol=1e-5)
    y.sum().backward()
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, fake_quantize_activations(x).sum(0).expand(12, -1))
    assert x.grad is not None
    expected = fake_quantize_weight(layer.weight).sum(0).expand(5, -1)
    assert torch.allclose(x.grad, expected, atol=1e-6)  # a sum that is 0 is rounded otherwise


def test_strength_warms_up_from_a_plain_layer() -> None:
    plain = torch.nn.Linear(16, 8, bias=False)
    model = swap_linear_layers(torch.nn.Sequential(plain))
    x = matrix(3, 16, 2)
    set_strength(model, 0.0)
    assert torch.allclose(model(x), plain(x))
    set_strength(model, 1.0)
    assert not torch.allclose(model(x), plain(x))


def test_kept_layers_stay() -> None:
    model = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4), "lm_head": torch.nn.Linear(4, 4)})
    swap_linear_layers(model)
    assert isinstance(model["q"], BitLinear)
    assert type(model["lm_head"]) is torch.nn.Linear


@pytest.mark.parametrize("rows", [1, 3])
def test_leading_dimensions_are_kept(rows: int) -> None:
    values, gamma = ternarize(matrix(6, 10, 3))
    assert ternary_linear(torch.ones(rows, 2, 10), values, gamma).shape == (rows, 2, 6)
