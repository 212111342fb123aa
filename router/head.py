"""The expert-token head: fitted rows, and the file format in which they travel. No torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save
from scipy.special import logsumexp  # type: ignore[import-untyped]

Floats = npt.NDArray[np.float32]

UNUSED = float("-inf")
"""Bias of a slot that no expert has."""


QUESTIONS = ("start", "pending", "turn")
"""What a row answers, by one linear score each; log-odds, "yes" above 0.

- start: at the answer's first token, does this expert write the answer from here?
- pending: at the first token, is there something in the request that this expert should write
  sooner or later?
- turn: at the end of a sentence of the answer, is it time to hand over?

A later hand-over needs both `pending`, remembered from the first token, and `turn`.
"""
START, PENDING, TURN = map(QUESTIONS.index, ("start", "pending", "turn"))
ROW_FORMAT = 2
"""Of `HeadRow.to_bytes`: 2 has the margins."""


@dataclass(frozen=True, eq=False)
class HeadRow:
    """One expert's part of the head: `f·weights[q] + bias[q]` for each of QUESTIONS.

    Attributes:
        weights: `[3, features]` float32 (`router/features.py`).
        bias: `[3]` float32; -inf where the answer is always no.
        margin: `[3]` float32: the thresholds in the biases; scores + margin are log-odds against
            "no".
    """

    weights: Floats
    bias: Floats
    margin: Floats

    def to_bytes(self) -> bytes:
        """Little-endian float32: the weights, the biases, the margins."""
        parts = [self.weights.ravel(), self.bias, self.margin]
        data: bytes = np.concatenate(parts).astype("<f4").tobytes()
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> HeadRow:
        values = np.frombuffer(data, dtype="<f4").astype(np.float32)
        count = len(QUESTIONS)
        weights, bias, margin = np.split(values, [-2 * count, -count])
        return cls(weights.reshape(count, -1), bias, margin)

    def with_start(self, weights: Floats, bias: float, margin: float) -> HeadRow:
        """The same row with another answer to where answers begin."""
        row = HeadRow(self.weights.copy(), self.bias.copy(), self.margin.copy())
        row.weights[START], row.bias[START], row.margin[START] = weights, bias, margin
        return row

    def asking(self, threshold: float | None) -> HeadRow:
        """The same row, saying yes from the probability `threshold` on instead of the learned one
        (None), at the first token: that the answer is the expert's, or that something in it is."""
        if threshold is None:
            return self
        row = HeadRow(self.weights, self.bias.copy(), self.margin.copy())
        asked = [START, PENDING]
        row.margin[asked] = math.log(threshold / (1 - threshold))
        row.bias[asked] += self.margin[asked] - row.margin[asked]
        return row

    def scores(self, question: str, hidden: Floats) -> Floats:
        """Log-odds `[n]` of one of QUESTIONS for features `[n, features]`."""
        index = QUESTIONS.index(question)
        scores: Floats = hidden @ self.weights[index] + self.bias[index]
        return scores


@dataclass(frozen=True, eq=False)
class Background:
    """What stands for "no expert" where answers begin: kinds of general traffic, each a class of
    its own beside the experts (`router/joint.py`). An expert's start score is f·row + bias less the
    `log_odds` of these.

    Attributes:
        weights: `[kinds, features]` float32; without kinds the log-odds are 0.
        bias: `[kinds]` float32.
    """

    weights: Floats
    bias: Floats

    @classmethod
    def none(cls, size: int) -> Background:
        """One without kinds, for features of this size."""
        return cls(np.zeros((0, size), np.float32), np.zeros(0, np.float32))

    def to_bytes(self) -> bytes:
        """Little-endian float32: of each kind the weights, then the bias."""
        data: bytes = np.column_stack([self.weights, self.bias]).astype("<f4").tobytes()
        return data

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> Background:
        """What `to_bytes` gave, for features of this size."""
        values = np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(-1, size + 1)
        return cls(values[:, :-1], values[:, -1])

    def log_odds(self, features: Floats) -> Floats:
        """`[n]`: log Σ e^(f·weights[k] + bias[k]) for features `[n, features]`."""
        if not len(self.bias):
            return np.zeros(len(features), np.float32)
        found: Floats = logsumexp(features @ self.weights.T + self.bias, axis=1)
        return found


def chances(scores: Mapping[str, tuple[HeadRow, float]]) -> dict[str, float]:
    """The probability of each expert where an answer begins, from its row and its score.

    Only one expert can begin an answer: they share what "no expert" leaves.
    """
    odds = {name: _odds(score + row.margin[START]) for name, (row, score) in scores.items()}
    rest = 1 + sum(odds.values())
    return {name: own / rest for name, own in odds.items()}


def later_chances(scores: Mapping[str, tuple[HeadRow, float, float]]) -> dict[str, float]:
    """The probability of each expert at a later hand-over, from its row and its scores for
    "pending" and "turn": that of the less likely of the two, as the gate decides by it."""
    odds = {
        name: _odds(min(pending + row.margin[PENDING], turn + row.margin[TURN]))
        for name, (row, pending, turn) in scores.items()
    }
    return {name: own / (1 + own) for name, own in odds.items()}


def _odds(log_odds: float) -> float:
    return math.exp(min(60.0, log_odds))


@dataclass(frozen=True)
class Head:
    """A whole head as the meta worker takes it: safetensors bytes and their version.

    The file holds `rows` `[3, slots, features]` and `bias` `[3, slots]`, float32, one matrix for
    each of QUESTIONS; an unused slot's bias is -inf. `background` `[kinds, features]` and
    `background_bias` `[kinds]` are those of a Background.
    """

    safetensors: bytes
    version: str

    def tensors(self) -> dict[str, Floats]:
        """`rows`, `bias`, `background` and `background_bias`."""
        return dict(load(self.safetensors))


def build_head(
    rows: Mapping[int, HeadRow],
    slots: int,
    hidden_size: int,
    background: Background | None = None,
) -> Head:
    """The head with `rows` in their slots and the others unused.

    Raises ValueError if a row does not have `hidden_size` weights or there is no such slot.
    """
    weights = np.zeros((len(QUESTIONS), slots, hidden_size), dtype=np.float32)
    bias = np.full((len(QUESTIONS), slots), UNUSED, dtype=np.float32)
    for slot, row in rows.items():
        if not 0 <= slot < slots or row.weights.shape != (len(QUESTIONS), hidden_size):
            raise ValueError(
                f"a row of shape {row.weights.shape} for slot {slot} does not fit a head of"
                f" {slots} slots and hidden size {hidden_size}"
            )
        weights[:, slot] = row.weights
        bias[:, slot] = row.bias
    background = background or Background.none(hidden_size)
    tensors = {
        "rows": weights,
        "bias": bias,
        "background": background.weights,
        "background_bias": background.bias,
    }
    # safetensors writes the memory of an array as it lies there, whatever its strides are.
    data = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    return Head(data, hashlib.sha256(data).hexdigest()[:16])
