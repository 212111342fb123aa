"""A bank's ternary layers on NVIDIA GPUs: humming's grouped product, or plain torch.

Each layer has room for `[places, …]` of what one expert has there, taken when the model is built,
so that vLLM reckons with it when it sizes the KV cache. Weights get humming's layout once, when an
expert is read (`tensors`, in the shelf's thread, on a stream of its own); a swap is copies from
pinned memory, on the steps' stream: it comes after the products that still read the place, and
before those that want the new expert.

The product (`experts/kernels/humming.py`) leaves rows where they are; a table names the expert of
each block of them. The table depends on the step and on the height of a block; it is made once a
step for each height, and no layer waits for the GPU.

CUDA graphs: banks run with `enforce_eager`. `Step.begin` decides in Python who is brought in, and
makes tables whose sizes vary. A graph would need them in buffers of fixed size that are filled
before it is replayed.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from vllm.logger import init_logger

from experts.kernels import Weights
from experts.kernels.humming import GpuSlots, Room
from experts.vllm_plugin.bank.layers import BankLinearMethod, LinearPlaces, Places, Tensors
from experts.vllm_plugin.cuda import FAILURES, activations

logger = init_logger(__name__)


class CudaBankLinearMethod(BankLinearMethod):
    """Ternary layers of several experts, on a GPU."""

    def places(self, layer: Any, count: int) -> Places:
        """Room for `count` experts, for humming if it serves such a layer here."""
        room = Room(
            count=count,
            outputs=sum(layer.loader.sizes),
            inputs=layer.weight.shape[1],
            has_bias=self.adds_bias(layer),
            dtype=layer.params_dtype,
            device=layer.weight.device,
        )
        try:
            return HummingPlaces(room)
        except FAILURES as error:
            logger.warning_once(
                "Plain torch computes the bank's ternary layers, one expert after the other,"
                " unpacking their weights at every step: slow. humming-kernels cannot serve them"
                " here: %s",
                str(error) or type(error).__name__,
            )
            return TorchPlaces(room)

    def tensors(self, layer: Any) -> Tensors:
        """What the loader has just put into the layer's own parameters, as its places take it.
        Raises CheckpointError if something is missing."""
        weights: Tensors = layer.bank.arranged(super().tensors(layer))
        return weights


class HummingPlaces(GpuSlots):
    """Ternary matrices on a GPU, for humming."""

    def __init__(self, room: Room) -> None:
        from vllm.model_executor.layers.quantization.utils.humming import (
            get_humming_linear_compute_config,
        )

        super().__init__(room, activations(), json.loads(get_humming_linear_compute_config()))

    def arranged(self, tensors: Tensors) -> Tensors:
        """In humming's layout, on the GPU."""
        return self.prepare(Weights(tensors["weight"], tensors["gamma"], tensors.get("bias")))


class TorchPlaces(LinearPlaces):
    """The reference: packed matrices on a GPU, for torch."""

    def __init__(self, room: Room) -> None:
        with torch.device("cpu"):
            super().__init__(room.count, room.outputs, room.inputs)
        one = room.empty()
        own = {"weight": one.packed, "gamma": one.gamma, "bias": one.bias}
        self._stacks = {
            name: tensor.new_zeros(room.count, *tensor.shape)
            for name, tensor in own.items()
            if tensor is not None
        }

    def arranged(self, tensors: Tensors) -> Tensors:
        """As they are."""
        return tensors

    def put(self, place: int, tensors: Tensors) -> None:
        own = {
            name: stack[place].copy_(tensors[name], non_blocking=True)
            for name, stack in self._stacks.items()
        }
        self.slots.put(place, Weights(own["weight"], own["gamma"], own.get("bias")))
