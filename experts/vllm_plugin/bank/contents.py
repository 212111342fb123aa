"""Which expert is in which place of a bank, and who is brought in when."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn
from vllm.model_executor.layers.layernorm import RMSNorm

from experts.kernels import Groups
from experts.vllm_plugin.bank.adapters import SELECTOR, BankError
from experts.vllm_plugin.bank.layers import (
    BankEmbeddingMethod,
    BankLinearMethod,
    NormPlaces,
    Places,
    TablePlaces,
)
from experts.vllm_plugin.bank.shelf import Shelf
from experts.vllm_plugin.bank.worker import BankStatus


class Bank:
    """The places of one engine's layers, and which expert is in each. Owner: the bank's model."""

    def __init__(self, model: Any, places: int) -> None:
        """Raises BankError if the model has parameters that cannot differ between experts."""
        self._layers = dict(_bank_layers(model))
        embedding = model.model.embed_tokens
        if getattr(model.lm_head, "weight", None) is embedding.weight:
            self._layers.pop("lm_head", None)  # tied: one table in two layers
        for name, layer in self._layers.items():
            head = name == "lm_head" or "lm_head" not in self._layers
            layer.bank = _places(layer, places, head)
        if "lm_head" not in self._layers:
            model.lm_head.bank = embedding.bank
        self.shelf = Shelf(model, self._layers)
        self._named: list[Path | None] = [None] * places
        self._place: OrderedDict[Path, int] = OrderedDict()
        """Where each resident expert is; the one not used for longest comes first."""
        self._free = list(range(places))
        self._users: Counter[Path] = Counter()
        self.tokens: Counter[Path] = Counter()
        self.swaps = 0
        self.swap_seconds = 0.0

    def name(self, slot: int, checkpoint: Path) -> None:
        """From now on vLLM's `slot` means an expert. Raises CheckpointError."""
        self.shelf.get(checkpoint)
        self._named[slot] = checkpoint

    def hold(self, checkpoint: Path) -> None:
        """One more adapter of vLLM's stands for an expert."""
        self._users[checkpoint] += 1

    def release(self, checkpoint: Path) -> None:
        """One adapter less stands for an expert; with the last one it is forgotten."""
        self._users[checkpoint] -= 1
        if self._users[checkpoint] <= 0:
            self.forget(checkpoint)

    def forget(self, checkpoint: Path) -> None:
        """Drop an expert that no adapter stands for."""
        if self._users[checkpoint] > 0:
            return
        del self._users[checkpoint]
        self._named = [None if named == checkpoint else named for named in self._named]
        place = self._place.pop(checkpoint, None)
        if place is not None:
            self._clear(place)
            self._free.append(place)
        self.shelf.drop(checkpoint)
        self.tokens.pop(checkpoint, None)

    def status(self) -> BankStatus:
        """The experts in host memory, and what became of the places."""
        return {
            "places": len(self._named),
            "swaps": self.swaps,
            "swap_seconds": self.swap_seconds,
            "experts": {
                str(checkpoint): {
                    "bytes": size,
                    "resident": checkpoint in self._place,
                    "tokens": self.tokens[checkpoint],
                }
                for checkpoint, size in self.shelf.sizes().items()
            },
        }

    def arrange(self, slots: list[int]) -> list[int]:
        """The places of the experts that vLLM's slots name, which are brought in if need be, into
        places of experts that this step does without. A slot that names nobody has place 0."""
        wanted = [self._named[slot] for slot in slots]
        for checkpoint in wanted:
            if checkpoint is not None and checkpoint in self._place:
                self._place.move_to_end(checkpoint)
        return [
            0 if checkpoint is None else self._bring(checkpoint, wanted) for checkpoint in wanted
        ]

    def count(self, groups: Groups) -> None:
        """Add up the tokens that are computed for each expert."""
        experts = {place: checkpoint for checkpoint, place in self._place.items()}
        for place, rows in zip(groups.slots.tolist(), groups.begin.diff().tolist(), strict=True):
            if place in experts:
                self.tokens[experts[place]] += rows

    def _bring(self, checkpoint: Path, wanted: list[Path | None]) -> int:
        """The place of an expert, which it gets now if it has none."""
        if checkpoint in self._place:
            return self._place[checkpoint]
        began = time.perf_counter()
        if not self._free:
            leaving = next(expert for expert in self._place if expert not in wanted)
            self._free.append(self._place.pop(leaving))
        place = self._free.pop()
        for name, tensors in self.shelf.get(checkpoint).layers.items():
            layer: Places = self._layers[name].bank
            layer.put(place, tensors)
        self._place[checkpoint] = place
        self.swaps += 1
        self.swap_seconds += time.perf_counter() - began
        return place

    def _clear(self, place: int) -> None:
        for layer in self._layers.values():
            layer.bank.clear(place)


def _places(layer: Any, count: int, head: bool) -> Places:
    """Room in a layer for `count` experts; `head`: a table of it is multiplied with too."""
    method = getattr(layer, "quant_method", None)
    if isinstance(method, BankLinearMethod):
        return method.places(layer, count)
    if isinstance(method, BankEmbeddingMethod):
        return TablePlaces(count, layer.weight, head)
    return NormPlaces(count, layer.weight)


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
