"""Fit one expert's row of the head on hidden states of the frozen meta LLM.

The backbone is frozen, so fitting is a small linear problem: for each of the head's three
questions a regularised logistic regression of "this expert" against everything else, whose bias
is then moved so that general traffic stays under a target rate. Rows are fitted one at a time:
a new expert leaves the others' decisions as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router.head import UNUSED, Floats, HeadRow

FALSE_ROUTE_RATE = 0.02
"""Share of general queries that may be routed at the first token, or be thought pending."""
TURN_RATE = 0.4
"""Share of general sentence ends that may pass as the expert's turn: it only says when, the
remembered `pending` says whether."""

_STRENGTH = 0.1
"""Inverse of the L2 penalty, on standardised features."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Hidden states that one kind of conversation gave.

    Attributes:
        start: `[n, hidden]`, where answers begin.
        ends: `[m, hidden]`, at ends of sentences inside the answers; m may be 0.
    """

    start: Floats
    ends: Floats


def fit_row(own: Evidence, two_part: Evidence, others: Evidence, general: Evidence) -> HeadRow:
    """The row of an expert.

    Args:
        own: its example queries; their `ends` are places where it should carry on.
        two_part: questions of which the meta LLM answers the first part and the expert the
            second; its turn comes at the `ends`.
        others: other experts' queries.
        general: ordinary traffic. On scores of it that the scoring fit has not seen (two
            halves) each bias is set.
    """
    nothing_else = [others.start] if len(others.start) else []
    start = _fit(own.start, [two_part.start, *nothing_else], general.start, FALSE_ROUTE_RATE)
    pending = _fit(
        np.concatenate([own.start, two_part.start]), nothing_else, general.start, FALSE_ROUTE_RATE
    )
    turn = _fit(np.concatenate([own.ends, two_part.ends]), [], general.ends, TURN_RATE)
    parts = (start, pending, turn)
    return HeadRow(
        np.stack([weights for weights, _ in parts]),
        np.array([bias for _, bias in parts], np.float32),
    )


def _fit(
    positive: Floats, related: list[Floats], general: Floats, rate: float
) -> tuple[Floats, float]:
    """Weights `[hidden]` and bias for `positive` against the rest, at most `rate` of unseen
    `general` states above 0. Without positives the answer is always no."""
    if not len(positive):
        return np.zeros(general.shape[1], np.float32), UNUSED
    half = np.arange(len(general)) % 2 == 0
    unseen = np.empty(len(general), np.float32)
    for seen in (half, ~half):
        weights, bias = _logistic(positive, np.concatenate([*related, general[seen]]))
        unseen[~seen] = general[~seen] @ weights + bias
    weights, bias = _logistic(positive, np.concatenate([*related, general]))
    return weights, bias + _shift(unseen, rate)


def _logistic(positive: Floats, negative: Floats) -> tuple[Floats, float]:
    """Weights `[hidden]` and bias; both classes weigh the same."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([positive, negative])
    labels = np.arange(len(features)) < len(positive)
    scaler = StandardScaler().fit(negative)
    model = LogisticRegression(C=_STRENGTH, max_iter=300, tol=1e-3, class_weight="balanced")
    model.fit(scaler.transform(features), labels)
    weights = model.coef_[0] / scaler.scale_
    bias = float(model.intercept_[0] - scaler.mean_ @ weights)
    return weights.astype(np.float32), bias


def _shift(scores: Floats, rate: float) -> float:
    """What to add so that at most `rate` of `scores` lie above 0; never raises them."""
    return min(0.0, -float(np.quantile(scores, 1 - rate)))
