"""The experts of a bank in host memory, read from their checkpoints."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experts.checkpoint import Reader
from experts.kernels.native import empty_weights
from experts.vllm_plugin.bank.layers import BankEmbeddingMethod, BankLinearMethod, Tensors

logger = logging.getLogger(__name__)
ALIGNMENT = 64
"""Bytes; the width of a cache line."""


@dataclass(frozen=True)
class Expert:
    """An expert in host memory: for each layer's name, its tensors; and how many bytes they
    take, without what it has in common with other experts."""

    layers: dict[str, Tensors]
    size: int


class Shelf:
    """The experts of one engine in host memory, read one at a time, also in the background.

    Reading goes through the model's own loaders, into the layers' own parameters, with which no
    step computes; the memory that they have meanwhile is the expert's.
    """

    def __init__(self, model: Any, layers: dict[str, Any]) -> None:
        self._model, self._layers = model, layers
        self._parameters: list[nn.Parameter] = []
        self._tables: list[nn.Parameter] = []
        for layer in layers.values():
            method = getattr(layer, "quant_method", None)
            alone = isinstance(method, BankEmbeddingMethod)
            (self._tables if alone else self._parameters).extend(layer.parameters(recurse=False))
        self._shapes = {id(p): p.shape for p in (*self._parameters, *self._tables)}
        self._experts: dict[Path, Expert] = {}
        self._reading: dict[Path, Future[Expert]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="bank")

    def start_reading(self, checkpoint: Path) -> None:
        """Read an expert in the background, if it is not there yet."""
        if checkpoint not in self._experts and checkpoint not in self._reading:
            self._reading[checkpoint] = self._reader.submit(self._read, checkpoint)

    def is_reading(self, checkpoint: Path) -> bool:
        """Whether an expert is still being read."""
        reading = self._reading.get(checkpoint)
        return reading is not None and not reading.done()

    def get(self, checkpoint: Path) -> Expert:
        """An expert; read, or waited for, if it is not there yet. Raises CheckpointError."""
        if checkpoint not in self._experts:
            self.start_reading(checkpoint)
            self._experts[checkpoint] = self._reading.pop(checkpoint).result()
        return self._experts[checkpoint]

    def drop(self, checkpoint: Path) -> None:
        """Forget an expert."""
        self._experts.pop(checkpoint, None)
        self._reading.pop(checkpoint, None)

    def size(self, checkpoint: Path) -> int:
        """Bytes that an expert takes; 0 if it is not there."""
        expert = self._experts.get(checkpoint)
        return 0 if expert is None else expert.size

    def release_parameters(self) -> None:
        """Take the layers' own parameters their memory, until the next expert is read."""
        for parameter in (*self._parameters, *self._tables):
            parameter.data = parameter.data.new_empty(0)

    def _read(self, checkpoint: Path) -> Expert:
        reader = Reader(checkpoint)
        for layer in self._layers.values():
            if hasattr(layer, "loader"):
                layer.loader.restart()
        try:
            size = self._take_memory()
            entries = reader.entries.values()
            self._model.read_weights((entry.name, entry.read()) for entry in entries)
            layers = {name: _tensors(layer) for name, layer in self._layers.items()}
        finally:
            self.release_parameters()
        return Expert(layers, size - self._share_tables(layers))

    def _take_memory(self) -> int:
        """Give the parameters fresh memory, the tables each their own; its bytes."""
        groups = [self._parameters, *([table] for table in self._tables)]
        return sum(self._place(group) for group in groups)

    def _place(self, parameters: list[nn.Parameter]) -> int:
        """Lay parameters one behind the other into fresh zeros; their bytes."""
        sizes = [self._shapes[id(p)].numel() * p.element_size() for p in parameters]
        steps = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
        memory = _zeros(sum(steps), pinned=parameters[0].device.type == "cuda")
        start = 0
        for parameter, size, step in zip(parameters, sizes, steps, strict=True):
            part = memory[start : start + size]
            parameter.data = part.view(parameter.dtype).view(self._shapes[id(parameter)])
            start += step
        return len(memory)

    def _share_tables(self, layers: dict[str, Tensors]) -> int:
        """Put other experts' tables in the places of those that equal them; the bytes saved."""
        saved = 0
        for name, layer in self._layers.items():
            if not isinstance(getattr(layer, "quant_method", None), BankEmbeddingMethod):
                continue
            table = layers[name]["weight"]
            others = {id(t): t for t in self._tables_of(name)}
            like = next((other for other in others.values() if torch.equal(other, table)), None)
            if like is not None:
                layers[name]["weight"] = like
                saved += table.nbytes
            elif others:
                logger.info("an expert's %s is unlike the others': it has its own", name)
        return saved

    def _tables_of(self, name: str) -> list[Tensor]:
        return [expert.layers[name]["weight"] for expert in list(self._experts.values())]


def _tensors(layer: Any) -> Tensors:
    """What was loaded into a layer's own parameters."""
    method = getattr(layer, "quant_method", None)
    if isinstance(method, BankLinearMethod):
        return method.tensors(layer)
    return {"weight": layer.weight.data}


def _zeros(size: int, pinned: bool) -> Tensor:
    """uint8 `[size]`, in large pages; pinned where an accelerator reads them directly."""
    if pinned:
        return torch.zeros(size, dtype=torch.uint8, pin_memory=True)
    return empty_weights(1, size).view(-1)
