"""LIMA's residual dropout: on what attention and MLP add to the residual stream."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def dropout_profile(layers: int, top: float) -> list[float]:
    """Rates from 0 at the bottom layer, rising linearly to `top` at the last (LIMA, section 3)."""
    return [top * layer / max(1, layers - 1) for layer in range(layers)]


def add_residual_dropout(model: Any, top: float) -> None:
    """Drop parts of the outputs of every `self_attn` and `mlp` while the model is training."""
    layers = model.get_decoder().layers
    for layer, rate in zip(layers, dropout_profile(len(layers), top), strict=True):
        for block in (layer.self_attn, layer.mlp):
            block.register_forward_hook(_dropper(rate))


def _dropper(rate: float) -> Any:
    def drop(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention returns its weights too
            return (_drop(output[0], module.training), *output[1:])
        return _drop(output, module.training)

    def _drop(states: Tensor, training: bool) -> Tensor:
        return nn.functional.dropout(states, rate, training)

    return drop
