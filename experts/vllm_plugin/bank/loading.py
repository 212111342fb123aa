"""Loading one checkpoint after another into the same parameters of a model of vLLM's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

Weights = Iterable[tuple[str, Tensor]]
Call = Callable[[Tensor], Any]
"""Puts a tensor of a checkpoint into the parameter that it belongs to."""


class Loading:
    """Loads a checkpoint by the model's own code, and others of its kind by the calls of weight
    loaders that this made: the model's code would search its layers for each name again, all of
    it in Python, during which no step of the engine goes on."""

    def __init__(self, load: Callable[[Weights], None], parameters: Iterable[nn.Parameter]) -> None:
        self._load = load
        self._parameters = list(parameters)
        self._calls: dict[str, list[Call]] = {}

    def first(self, weights: Weights) -> None:
        """Load a checkpoint, and note how."""
        self._calls = {}
        noted = _Noted(weights)
        with noted.listening(self._parameters):
            self._load(noted)
        if noted.complete:
            self._calls = noted.calls

    def another(self, names: Collection[str], weights: Weights) -> None:
        """Load a checkpoint whose configuration equals that of the one which `first` loaded."""
        if not self._calls.keys() >= set(names):
            self.first(weights)
            return
        for name, tensor in weights:
            for call in self._calls[name]:
                call(tensor)


class _Noted:
    """The tensors of a checkpoint, and the calls of weight loaders that each led to."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._tensors: dict[int, tuple[str, Tensor]] = {}
        """By id; a tensor that is kept here shares its id with no other."""
        self.calls: dict[str, list[Call]] = {}
        self.complete = True
        """Whether every call was given a tensor as it is in the checkpoint."""

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._weights:
            self._tensors[id(tensor)] = name, tensor
            self.calls[name] = []
            yield name, tensor

    @contextmanager
    def listening(self, parameters: Iterable[Any]) -> Iterator[None]:
        """Note the calls of the parameters' weight loaders."""
        before = [(p, p.__dict__.get("weight_loader")) for p in parameters]
        for parameter, loader in before:
            parameter.weight_loader = self._listener(loader or default_weight_loader)
        try:
            yield
        finally:
            for parameter, loader in before:
                if loader is None:
                    del parameter.weight_loader
                else:
                    parameter.weight_loader = loader

    def _listener(self, loader: Callable[..., Any]) -> Callable[..., Any]:
        def load(parameter: nn.Parameter, tensor: Tensor, *rest: Any, **named: Any) -> Any:
            name, _ = self._tensors.get(id(tensor), ("", None))
            if name:
                self.calls[name].append(lambda other: loader(parameter, other, *rest, **named))
            else:
                self.complete = False
            return loader(parameter, tensor, *rest, **named)

        return load
