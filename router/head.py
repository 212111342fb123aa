"""The expert-token head: fitted rows, and the file format in which they travel. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

Floats = npt.NDArray[np.float32]

UNUSED = float("-inf")
"""Bias of a slot that no expert has."""


@dataclass(frozen=True, eq=False)
class HeadRow:
    """One expert's row of the head.

    The log-odds of "this expert writes on" at hidden state h are `h·weights + start` before the
    answer's first token and `h·weights + later` before any other.

    Attributes:
        weights: `[hidden]` float32.
        start: bias at the first token.
        later: bias at every later token.
    """

    weights: Floats
    start: float
    later: float

    def to_bytes(self) -> bytes:
        """Little-endian float32: the weights, then both biases."""
        values = np.append(self.weights, [self.start, self.later])
        return values.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> HeadRow:
        values = np.frombuffer(data, dtype="<f4")
        return cls(values[:-2].astype(np.float32), float(values[-2]), float(values[-1]))

    def scores(self, hidden: Floats, *, start: bool) -> Floats:
        """Log-odds `[n]` for hidden states `[n, hidden]`."""
        scores: Floats = hidden @ self.weights + np.float32(self.start if start else self.later)
        return scores


@dataclass(frozen=True)
class Head:
    """A whole head as the meta worker takes it: safetensors bytes and their version.

    The file holds `rows` `[slots, hidden]` and `bias` `[slots, 2]` (first token, later tokens),
    float32; an unused slot's bias is -inf.
    """

    safetensors: bytes
    version: str


def build_head(rows: Mapping[int, HeadRow], slots: int, hidden_size: int) -> Head:
    """The head with `rows` in their slots and the others unused.

    Raises ValueError if a row does not have `hidden_size` weights or there is no such slot.
    """
    weights = np.zeros((slots, hidden_size), dtype=np.float32)
    bias = np.full((slots, 2), UNUSED, dtype=np.float32)
    for slot, row in rows.items():
        if not 0 <= slot < slots or row.weights.shape != (hidden_size,):
            raise ValueError(
                f"row of {row.weights.shape[0]} weights for slot {slot} does not fit a head of"
                f" {slots} slots and hidden size {hidden_size}"
            )
        weights[slot] = row.weights
        bias[slot] = (row.start, row.later)
    data = save({"rows": weights, "bias": bias})
    return Head(data, hashlib.sha256(data).hexdigest()[:16])
