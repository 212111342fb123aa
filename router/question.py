"""One question of the head: a linear score of features, and the margin above which it is a yes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.head import UNUSED, Floats
from router.solver import Space, regress_against

Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Part:
    """One question: scores `f·weights + bias` are log-odds; above `margin` the answer is yes."""

    weights: Floats
    bias: float
    margin: float


def raw_row(space: Space, weights: Floats, bias: float) -> tuple[Floats, float]:
    """Weights `[d]` and bias of a space as ones for raw features."""
    rows, biases = space.rows(weights[None], np.array([bias], np.float32))
    return rows[0], float(biases[0])


def fit_question(
    space: Space,
    mapped: Floats,
    yes: Chosen,
    general: Chosen,
    rate: float,
    prior: float = 0.0,
) -> Part:
    """Yes or no, for states `mapped` `[n, d]` in a space, with at most `rate` of the unseen
    `general` ones above the margin. Without any of these the answer is always no. `prior`: the
    log-odds of a yes before anything is seen."""
    if not yes.any() or not general.any():
        return Part(np.zeros(mapped.shape[1], np.float32), UNUSED, 0.0)
    labels = yes.astype(np.int64)
    weight = (1 / np.bincount(labels))[labels].astype(np.float32)
    rivals = np.zeros(len(labels), np.float32)
    half = np.arange(len(labels)) % 2 == 0
    scores = np.empty(len(labels), np.float32)
    for seen in (half, ~half):
        weights, bias = regress_against(mapped[seen], labels[seen], weight[seen], rivals[seen])
        scores[~seen] = mapped[~seen] @ weights + bias
    weights, bias = regress_against(mapped, labels, weight, rivals)
    margin = max(0.0, float(np.quantile(scores[general] + prior, 1 - rate)))
    return Part(*raw_row(space, weights, bias + prior), margin)
