"""Fit one expert's row of the head on hidden states of the frozen meta LLM.

The backbone is frozen, so fitting is a small linear problem: regularised logistic regression of
"this expert" against everything else (general queries, the other experts' examples), with the
biases then moved so that false routes stay under a target rate. Rows are fitted one at a time:
a new expert leaves the others' decisions as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router.head import Floats, HeadRow

FALSE_START_RATE = 0.02
"""Share of foreign queries that may be routed at the first token."""
FALSE_LATER_RATE = 0.001
"""Share of later tokens of foreign answers at which the expert may be called."""

_STRENGTH = 0.03
"""Inverse of the L2 penalty, on standardised features."""


@dataclass(frozen=True, eq=False)
class States:
    """Hidden states by where in the answer they were seen.

    Attributes:
        start: `[n, hidden]`, where an answer begins.
        later: `[m, hidden]`, inside answers; m may be 0.
    """

    start: Floats
    later: Floats

    @property
    def all(self) -> Floats:
        return np.concatenate([self.start, self.later])


def join(parts: list[States]) -> States:
    """States of all parts together."""
    return States(
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.later for part in parts]),
    )


def fit_row(positive: States, related: States, general: States) -> HeadRow:
    """The row that tells `positive` (call this expert) from the rest (do not).

    `related` are states near the expert's that are not its own: other experts' queries, answers
    that mention its topic too early. `general` is ordinary traffic; on scores of it that the
    scoring fit has not seen (two folds) the biases are set, so that at most FALSE_START_RATE of
    it is routed at the start and FALSE_LATER_RATE of its tokens later.
    """
    unseen_start, unseen_later = _unseen_scores(positive, related, general)
    weights, bias = _logistic(positive, join([related, general]))
    return HeadRow(
        weights,
        start=bias + _shift(unseen_start, FALSE_START_RATE),
        later=bias + _shift(unseen_later, FALSE_LATER_RATE),
    )


def _logistic(positive: States, negative: States) -> tuple[Floats, float]:
    """Weights `[hidden]` and bias. Each kind of state weighs the same, later negatives more."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    kinds = [positive.start, positive.later, negative.start, negative.later]
    masses = [1.0, 1.0, 1.0, 4.0]
    labels = np.concatenate([np.full(len(kind), i < 2) for i, kind in enumerate(kinds)])
    sample_weight = np.concatenate(
        [
            np.full(len(kind), mass * len(negative.start) / max(len(kind), 1))
            for kind, mass in zip(kinds, masses, strict=True)
        ]
    )
    scaler = StandardScaler().fit(negative.all)
    model = LogisticRegression(C=_STRENGTH, max_iter=300, tol=1e-3)
    model.fit(scaler.transform(np.concatenate(kinds)), labels, sample_weight)
    weights = model.coef_[0] / scaler.scale_
    bias = float(model.intercept_[0] - scaler.mean_ @ weights)
    return weights.astype(np.float32), bias


def _unseen_scores(positive: States, related: States, general: States) -> tuple[Floats, Floats]:
    """Scores of the general states, each by a fit on the other half of them."""
    # Later states come answer by answer: halves, so that no answer is in both.
    start_half = np.arange(len(general.start)) % 2
    later_half = np.arange(len(general.later)) * 2 // max(len(general.later), 1)
    start = np.empty(len(general.start), np.float32)
    later = np.empty(len(general.later), np.float32)
    for half in (0, 1):
        seen = States(general.start[start_half != half], general.later[later_half != half])
        weights, bias = _logistic(positive, join([related, seen]))
        start[start_half == half] = general.start[start_half == half] @ weights + bias
        later[later_half == half] = general.later[later_half == half] @ weights + bias
    return start, later


def _shift(scores: Floats, rate: float) -> float:
    """What to add so that at most `rate` of `scores` lie above 0; never raises them."""
    if not len(scores):
        return 0.0
    return min(0.0, -float(np.quantile(scores, 1 - rate)))
