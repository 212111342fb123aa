"""Fit one expert's row of the head on features of the frozen meta LLM.

The backbone is frozen, so fitting is a small linear problem: for each of the head's three
questions a regularised logistic regression of "this expert" against everything else
(`router/solver.py`), whose bias is then moved so that general traffic stays under a target rate.
Rows are fitted one at a time: a new expert leaves the others' decisions as they are. All experts
at once: `router/joint.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.head import UNUSED, Floats, HeadRow
from router.solver import Space, regress

FALSE_ROUTE_RATE = 0.02
"""Share of general queries that may be routed at the first token, or be thought pending."""
TURN_RATE = 0.4
"""Share of general sentence ends that may pass as the expert's turn: it only says when, the
remembered `pending` says whether."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Features that one kind of conversation gave.

    Attributes:
        start: `[n, features]`, where answers begin.
        ends: `[m, features]`, at ends of sentences inside the answers; m may be 0.
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
    start, pending = _fit(
        [own.start, two_part.start, others.start],
        general.start,
        [_Question((0,), FALSE_ROUTE_RATE), _Question((0, 1), FALSE_ROUTE_RATE)],
    )
    (turn,) = _fit([own.ends, two_part.ends], general.ends, [_Question((0, 1), TURN_RATE)])
    parts = (start, pending, turn)
    return HeadRow(
        np.stack([weights for weights, _ in parts]),
        np.array([bias for _, bias in parts], np.float32),
    )


@dataclass(frozen=True)
class _Question:
    """Which groups are a "yes", the others being a "no"; how much general traffic may be one."""

    yes: tuple[int, ...]
    rate: float


def _fit(
    groups: Sequence[Floats], general: Floats, questions: Sequence[_Question]
) -> list[tuple[Floats, float]]:
    """Weights `[features]` and a bias for each question, at most its rate of unseen `general`
    features above 0. Without an example of "yes" the answer is always no."""
    half = np.arange(len(general)) % 2 == 0
    unseen = np.empty((len(questions), len(general)), np.float32)
    for seen in (half, ~half):
        for scores, (weights, bias) in zip(
            unseen, _regress(groups, general[seen], questions), strict=True
        ):
            scores[~seen] = general[~seen] @ weights + bias
    return [
        (weights, bias + _shift(scores, question.rate))
        for scores, question, (weights, bias) in zip(
            unseen, questions, _regress(groups, general, questions), strict=True
        )
    ]


def _regress(
    groups: Sequence[Floats], general: Floats, questions: Sequence[_Question]
) -> list[tuple[Floats, float]]:
    sets = [*groups, general]
    present = [number for number, features in enumerate(sets) if len(features)]
    member = np.repeat(np.arange(len(sets)), [len(features) for features in sets])
    features = np.concatenate(sets)
    space = Space.fit(features, np.searchsorted(present, member))
    mapped = space.map(features)
    found = []
    for question in questions:
        labels = np.isin(member, question.yes).astype(np.int64)
        if not labels.any():
            found.append((np.zeros(features.shape[1], np.float32), UNUSED))
            continue
        rows, bias = space.rows(*regress(mapped, labels, np.ones(len(labels), np.float32)))
        found.append((rows[0], float(bias[0])))
    return found


def _shift(scores: Floats, rate: float) -> float:
    """What to add so that at most `rate` of `scores` lie above 0; never raises them."""
    if np.isneginf(scores).all():
        return 0.0
    return min(0.0, -float(np.quantile(scores, 1 - rate)))
