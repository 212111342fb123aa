"""Which expert each token of a step belongs to: found once a step, used by every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from experts.kernels import Groups
from experts.kernels.blocks import Blocks, send

Arrange = Callable[[list[int]], list[int]]
"""Brings the experts that vLLM's slots name into places of the bank; says which."""


class Step:
    """The rows of one kind (tokens of a forward pass, or samples for the head).

    `places` is int64 `[rows]`, on the rows' device: the place of each row's expert; `groups` are
    the rows of each place, on the CPU. Where all rows have one expert, `only` is its place.
    """

    places: Tensor
    groups: Groups
    only: int | None

    def begin(
        self, slots: Tensor, rows: int, arrange: Arrange, device: torch.device | None = None
    ) -> None:
        """Take the slots of the next step's rows, which are on `device` (by default where `slots`
        is). vLLM's -1 (no expert named) and rows that it added to fill a batch go to slot 0: what
        comes of them is not used.

        Slots on a GPU must be waited for; after that, no layer waits for anything.
        """
        device = slots.device if device is None else device
        slots = slots[:rows].cpu().clamp(min=0).long()
        slots = torch.nn.functional.pad(slots, (0, rows - slots.shape[0]))
        groups = Groups.of(slots)
        places = arrange(groups.slots.tolist())
        self.groups = replace(groups, slots=torch.tensor(places, dtype=torch.int64))
        self.only = places[0] if len(places) == 1 else None
        each = torch.empty_like(slots)
        for place, own in self.groups.each():
            each[own] = place
        self.places = send(each, device)
        self._order = send(self.groups.order, device)
        self._blocks: dict[int, Blocks] = {}

    def blocks(self, size: int) -> Blocks:
        """The rows in blocks of `size`, on their device; made once a step."""
        if size not in self._blocks:
            self._blocks[size] = Blocks.of(self.groups, size, self.places.device)
        return self._blocks[size]

    def select(self, stack: Tensor) -> Tensor:
        """Each row's own part of `stack`, `[places, …]`: `[rows, …]`, or `[…]` where all rows
        have one expert."""
        return stack[self.places] if self.only is None else stack[self.only]

    def split(self, x: Tensor, outputs: int, compute: Callable[[int, Tensor], Tensor]) -> Tensor:
        """`compute(place, rows of x)` for each expert, put together: `[rows, outputs]`, in the
        dtype of what is computed first."""
        if self.only is not None:
            return compute(self.only, x)
        whole: Tensor | None = None
        for place, own in replace(self.groups, order=self._order).each():
            part = compute(place, x[own])
            if whole is None:
                whole = part.new_empty((x.shape[0], outputs))
            whole[own] = part
        assert whole is not None
        return whole


class Steps:
    """The step under way: its tokens, and the samples whose logits are wanted."""

    def __init__(self) -> None:
        self.tokens = Step()
        self.samples = Step()


_UNDER_CONSTRUCTION: list[Steps] = []


@contextmanager
def building(steps: Steps) -> Iterator[None]:
    """While it lasts, the quantization method gives layers of a bank."""
    _UNDER_CONSTRUCTION.append(steps)
    try:
        yield
    finally:
        _UNDER_CONSTRUCTION.pop()


def under_construction() -> Steps | None:
    """The steps of the bank that is being built in this process, if one is."""
    return _UNDER_CONSTRUCTION[-1] if _UNDER_CONSTRUCTION else None
