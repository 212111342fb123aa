"""Which slot each token of a step belongs to: found once a step, used by every layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from experts.kernels import Groups


class Step:
    """The rows of one kind (tokens of a forward pass, or samples for the head), and their slots.

    `slots` is int64 `[rows]`, each at least 0; `groups` are the rows of each slot. Where all rows
    have one slot, `only` is that slot.
    """

    slots: Tensor
    groups: Groups
    only: int | None

    def begin(self, slots: Tensor, rows: int) -> None:
        """Take the slots of the next step's rows. vLLM's -1 (no expert named) and rows that it
        added to fill a batch go to slot 0: what comes of them is not used."""
        slots = slots[:rows].clamp(min=0).long()
        self.slots = torch.nn.functional.pad(slots, (0, rows - slots.shape[0]))
        self.groups = Groups.of(self.slots)
        self.only = int(self.groups.slots[0]) if self.groups.slots.numel() == 1 else None

    def select(self, stack: Tensor) -> Tensor:
        """Each row's own part of `stack`, `[slots, …]`: `[rows, …]`, or `[…]` where all rows
        have one slot."""
        return stack[self.slots] if self.only is None else stack[self.only]


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
