"""`BitLinear`: a linear layer that is trained through ternary quantization."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from experts.ternary import fake_quantize_activations, fake_quantize_weight


class BitLinear(nn.Linear):
    """Drop-in `nn.Linear` with fake-quantized weight (ternary) and input (int8 per token).

    The gradient passes straight through both. `strength` (λ, a buffer that is not saved) warms
    the quantization up: 0 is a plain linear layer, 1 is W1.58A8.
    """

    strength: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias)
        self.register_buffer("strength", torch.ones(()), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        weight = fake_quantize_weight(self.weight, self.strength)
        x = fake_quantize_activations(input, self.strength)
        return nn.functional.linear(x, weight.to(x.dtype), self.bias)


def swap_linear_layers(model: nn.Module, keep: Collection[str] = ("lm_head",)) -> nn.Module:
    """Replace every `nn.Linear` of `model` in place, sharing its weights, except those whose
    last name is in `keep`. Returns the model."""
    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear or name.rpartition(".")[2] in keep:
            continue
        swapped = BitLinear(module.in_features, module.out_features, module.bias is not None)
        swapped.weight, swapped.bias = module.weight, module.bias
        model.set_submodule(name, swapped.to(module.weight.device))
    return model


def bit_linear_layers(model: nn.Module) -> Iterator[tuple[str, BitLinear]]:
    """The ternary layers of `model` with their names."""
    for name, module in model.named_modules():
        if isinstance(module, BitLinear):
            yield name, module


def set_strength(model: nn.Module, strength: float) -> None:
    """Set the warm-up λ of every ternary layer."""
    for _, layer in bit_linear_layers(model):
        layer.strength.fill_(strength)
