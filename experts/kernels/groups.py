"""The tokens of a mixed batch, grouped by the slot whose weights they are multiplied with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """Tokens `order[begin[g]:begin[g + 1]]` of a batch belong to `slots[g]`; all int64, on the CPU.

    Made once a step and used by every layer.
    """

    order: Tensor
    begin: Tensor
    slots: Tensor

    @classmethod
    def of(cls, slots: Tensor) -> Groups:
        """Group the tokens of a batch; `slots` is `[tokens]`, an integer of at least 0 each."""
        used, counts = torch.unique(slots.long(), return_counts=True)
        order = torch.argsort(slots, stable=True)
        begin = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        return cls(order, begin, used)

    def each(self) -> Iterator[tuple[int, Tensor]]:
        """Every slot in use, and the places of its tokens in the batch."""
        begin = self.begin.tolist()
        for g, slot in enumerate(self.slots.tolist()):
            yield slot, self.order[begin[g] : begin[g + 1]]

    def fit(self, x: Tensor, slots: int) -> bool:
        """Whether they divide the rows of `x` (`[tokens, in]`) among that many slots."""
        return x.ndim == 2 and x.shape[0] == self.order.numel() and self._largest < slots

    @cached_property
    def _largest(self) -> int:
        return int(self.slots.max()) if self.slots.numel() else -1
