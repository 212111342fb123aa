"""The experts of a bank in host memory, read from their checkpoints."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from experts.checkpoint import Layout, Reader
from experts.errors import ExpertsError
from experts.kernels.native import empty_weights
from experts.vllm_plugin.bank.adapters import BankError, essence, read_config
from experts.vllm_plugin.bank.host import PinnedMemory, aside
from experts.vllm_plugin.bank.layers import BankEmbeddingMethod, BankLinearMethod, Tensors
from experts.vllm_plugin.bank.loading import Loading

logger = logging.getLogger(__name__)
MB = 1_000_000
RESERVE = 256 * MB
"""Bytes of memory that are left to other things."""
TURN_SECONDS = 1e-4
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
        self._layers = layers
        self._parameters: list[nn.Parameter] = []
        self._tables: list[nn.Parameter] = []
        for layer in layers.values():
            group = self._tables if _is_table(layer) else self._parameters
            group.extend(layer.parameters(recurse=False))
        self._shapes = {id(p): p.shape for p in (*self._parameters, *self._tables)}
        self._device = self._parameters[0].device
        self._loading = Loading(model.read_weights, (*self._parameters, *self._tables))
        self._experts: dict[Path, Expert] = {}
        self._reading: dict[Path, Future[Expert]] = {}
        self._one_at_a_time = threading.Lock()
        self._known: tuple[dict[str, Any] | None, Layout | None] = None, None
        """The configuration of the expert that was read last, and what it has to hold; None if
        reading it failed."""

    def start_reading(self, checkpoint: Path) -> None:
        """Read an expert in the background, if it is not there yet."""
        if checkpoint not in self._experts and checkpoint not in self._reading:
            reading = self._reading[checkpoint] = Future[Expert]()
            # A thread for each: torch's helper threads, which it brings along, end with it.
            threading.Thread(target=self._read, args=(checkpoint, reading), daemon=True).start()

    def outcome(self, checkpoint: Path) -> tuple[bool, str, int]:
        """Whether reading an expert has ended; what went wrong, for a person; its size."""
        reading = self._reading.get(checkpoint)
        if reading is not None and not reading.done():
            return False, "", 0
        try:
            return True, "", self.get(checkpoint).size
        except ExpertsError as error:
            said = str(error) if str(checkpoint) in str(error) else f"{checkpoint}: {error}"
            return True, said, 0
        except Exception as error:
            logger.exception("could not read %s", checkpoint)
            return True, f"{checkpoint} cannot be read: {error}", 0

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

    def sizes(self) -> dict[Path, int]:
        """The experts that are there, and the bytes that each takes."""
        return {checkpoint: expert.size for checkpoint, expert in self._experts.items()}

    def release_parameters(self) -> None:
        """Take the layers' own parameters their memory, until the next expert is read."""
        for parameter in (*self._parameters, *self._tables):
            parameter.data = parameter.data.new_empty(0, device=self._device)

    def _read(self, checkpoint: Path, reading: Future[Expert]) -> None:
        with self._one_at_a_time, aside(self._device), brief_turns():
            try:
                reading.set_result(self._expert(checkpoint))
            except BaseException as error:
                reading.set_exception(error)

    def _expert(self, checkpoint: Path) -> Expert:
        config = essence(read_config(checkpoint))
        before, layout = self._known
        self._known = None, None
        reader = Reader(checkpoint, layout=layout if before == config else None)
        for layer in self._layers.values():
            if hasattr(layer, "loader"):
                layer.loader.restart()
        try:
            size = self._take_memory()
            if before == config:
                self._loading.another(reader.entries.keys(), reader.stored())
            else:
                self._loading.first(reader.stored())
            tables = {n: _tensors(layer) for n, layer in self._layers.items() if _is_table(layer)}
            size -= self._share_tables(tables)
            hold = self._holder(size)
            layers = {
                name: hold(tables[name] if name in tables else _tensors(layer))
                for name, layer in self._layers.items()
            }
        finally:
            self.release_parameters()
        self._known = config, reader.layout
        return Expert(layers, size)

    def _holder(self, size: int) -> Callable[[Tensors], Tensors]:
        """Puts what a layer has where it stays: where it is, or, for a GPU, into pinned memory."""
        if self._device.type != "cuda":
            return lambda tensors: tensors
        memory = PinnedMemory(size)
        return lambda tensors: {
            name: tensor if tensor.is_pinned() else memory.hold(tensor)  # shared tables are
            for name, tensor in tensors.items()
        }

    def _take_memory(self) -> int:
        """Give the parameters fresh memory, the tables each their own; its bytes. Raises BankError
        if there is not enough."""
        groups = [self._parameters, *([table] for table in self._tables)]
        free = psutil.virtual_memory().available
        needed = sum(self._shapes[id(p)].numel() * p.element_size() for g in groups for p in g)
        if needed + RESERVE > free:
            raise BankError(
                f"no memory for another expert: it takes {needed / MB:.0f} MB, and"
                f" {RESERVE / MB:.0f} MB of the {free / MB:.0f} MB that are free are left to"
                " other programs; remove an expert, or end a program"
            )
        return sum(self._place(group) for group in groups)

    def _place(self, parameters: list[nn.Parameter]) -> int:
        """Lay parameters one behind the other into fresh memory; their bytes."""
        sizes = [self._shapes[id(p)].numel() * p.element_size() for p in parameters]
        steps = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
        memory = empty_weights(1, sum(steps)).view(-1)
        start = 0
        for parameter, size, step in zip(parameters, sizes, steps, strict=True):
            part = memory[start : start + size]
            parameter.data = part.view(parameter.dtype).view(self._shapes[id(parameter)])
            start += step
        return len(memory)

    def _share_tables(self, layers: dict[str, Tensors]) -> int:
        """Put other experts' tables in the places of those that equal them, and prepare those that
        are new; the bytes saved, less those that preparing takes."""
        saved = 0
        for name, layer in self._layers.items():
            if not _is_table(layer):
                continue
            table = layers[name]["weight"]
            others = {id(t): t for t in self._tables_of(name)}
            like = next((other for other in others.values() if torch.equal(other, table)), None)
            if like is not None:
                layers[name]["weight"] = like
                saved += table.nbytes
                continue
            saved -= layer.bank.prepare(table)
            if others:
                logger.info("an expert's %s is unlike the others': it has its own", name)
        return saved

    def _tables_of(self, name: str) -> list[Tensor]:
        return [expert.layers[name]["weight"] for expert in list(self._experts.values())]


@contextmanager
def brief_turns() -> Iterator[None]:
    """Let the interpreter change threads often: a step gives it up at every operation of torch,
    and would each time wait a whole turn (5 ms by default) for a thread that only computes in
    Python."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _is_table(layer: Any) -> bool:
    return isinstance(getattr(layer, "quant_method", None), BankEmbeddingMethod)


def _tensors(layer: Any) -> Tensors:
    """What was loaded into a layer's own parameters."""
    method = getattr(layer, "quant_method", None)
    if isinstance(method, BankLinearMethod):
        return method.tensors(layer)
    return {"weight": layer.weight.data}
