"""The experts of a bank: loaded from checkpoints into host memory, from there into slots."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.layernorm import RMSNorm

from experts.checkpoint import Reader
from experts.kernels.native import empty_weights
from experts.vllm_plugin.bank.adapters import SELECTOR, BankError
from experts.vllm_plugin.bank.layers import BankEmbeddingMethod, BankLinearMethod

logger = logging.getLogger(__name__)

Contents = dict[str, dict[str, Tensor]]
"""An expert: for each layer's name, its tensors without the dimension of slots. An embedding or
head equal to the shared one is left out."""


class Bank:
    """The slots of one engine's layers, and what fills them. One owner: the bank's model."""

    def __init__(self, model: Any, slots: int) -> None:
        """Raises BankError if the model has parameters that cannot differ between experts."""
        self._model = model
        self._slots = slots
        self._layers = dict(_bank_layers(model))
        self.swaps = 0
        self.swap_seconds = 0.0
        for layer in self._layers.values():
            layer.bank = {}
        if getattr(model.lm_head, "weight", None) is model.model.embed_tokens.weight:
            self._layers.pop("lm_head", None)
            model.lm_head.bank = model.model.embed_tokens.bank  # tied: one matrix in two places

    def load(self, checkpoint: Path) -> Contents:
        """Read an expert, in the layout of the slots. Raises CheckpointError."""
        reader = Reader(checkpoint)
        for layer in self._layers.values():
            if hasattr(layer, "loader"):
                layer.loader.restart()
        self._model.read_weights((entry.name, entry.read()) for entry in reader.entries.values())
        return {name: self._take(layer) for name, layer in self._layers.items()}

    def activate(self, slot: int, contents: Contents) -> None:
        """Copy an expert into a slot."""
        began = time.perf_counter()
        for name, tensors in contents.items():
            layer = self._layers[name]
            shared, stacked = layer.bank.get("shared"), "weight" in layer.bank
            if shared is not None and tensors and not stacked:
                logger.warning("this bank's experts differ in %s: each slot has its own", name)
                self._stack(layer, "weight", shared)[:] = shared
            if shared is not None and not tensors and stacked:
                tensors = {"weight": shared}
            for key, tensor in tensors.items():
                stack = layer.bank[key] if key in layer.bank else self._stack(layer, key, tensor)
                stack[slot].copy_(tensor, non_blocking=True)
        self.swaps += 1
        self.swap_seconds += time.perf_counter() - began

    def _stack(self, layer: Any, key: str, like: Tensor) -> Tensor:
        """Room for a tensor of every slot's expert, where the layer computes."""
        shape = (self._slots, *like.shape)
        if like.dtype == torch.uint8 and layer.weight.device.type == "cpu":
            stack = empty_weights(shape[0] * shape[1], shape[2]).view(shape).zero_()
        else:
            stack = torch.zeros(shape, dtype=like.dtype, device=layer.weight.device)
        layer.bank[key] = stack
        return stack

    def _take(self, layer: Any) -> dict[str, Tensor]:
        """A copy, in host memory, of what was loaded into a layer's own parameters."""
        method = getattr(layer, "quant_method", None)
        if isinstance(method, BankLinearMethod):
            return {key: _to_host(tensor) for key, tensor in method.contents(layer).items()}
        weight = layer.weight.data
        if isinstance(method, BankEmbeddingMethod):
            if "shared" not in layer.bank:
                layer.bank["shared"] = weight.clone()  # the next load overwrites the parameter
            if torch.equal(weight, layer.bank["shared"]):
                return {}
        return {"weight": _to_host(weight)}


def _to_host(tensor: Tensor) -> Tensor:
    """A copy in memory that the accelerator, where there is one, reads directly."""
    if tensor.device.type == "cpu":
        return tensor.clone()
    return tensor.cpu().pin_memory()


def _bank_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers of a model in which experts differ."""
    known: set[int] = set()
    for name, module in model.named_modules():
        method = getattr(module, "quant_method", None)
        if isinstance(method, BankLinearMethod | BankEmbeddingMethod) or type(module) is RMSNorm:
            known |= {id(parameter) for parameter in module.parameters(recurse=False)}
            yield name, module
    for name, parameter in model.named_parameters():
        if id(parameter) not in known and not name.startswith(SELECTOR):
            raise BankError(f"a bank cannot hold {name}; give such experts workers of their own")
