"""Figures of a router on labelled queries. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from router.head import Floats
from router.solver import Labels

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """One bin of the reliability diagram: decisions of like probability."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Figures:
    """What `trivium router evaluate` reports.

    Attributes:
        n: queries.
        accuracy: share of right decisions, "no expert" being one.
        expert_recall: share of experts' queries that reach their expert.
        false_route_rate: share of general queries that reach any expert.
        per_expert: recall, precision and number of queries by name.
        confusion: `confusion[truth][decision]`, in the order of `labels`.
        labels: "none", then the experts.
        ece: expected calibration error (Guo et al. 2017, ten bins); None without probabilities.
        reliability: its bins.
    """

    n: int
    accuracy: float
    expert_recall: float
    false_route_rate: float
    per_expert: dict[str, dict[str, float]]
    confusion: list[list[int]]
    labels: list[str]
    ece: float | None = None
    reliability: tuple[Reliability, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures(
    truth: Labels, decided: Labels, experts: list[str], chances: Floats | None = None
) -> Figures:
    """Figures of decisions `[n]` against the truth `[n]`: 0 none, else 1 + place in `experts`.

    `chances` `[n, 1 + experts]` are the probabilities; the one of the decision counts.
    """
    size = 1 + len(experts)
    confusion = np.zeros((size, size), np.int64)
    np.add.at(confusion, (truth, decided), 1)
    own = truth > 0
    bins = () if chances is None else _reliability(truth, decided, chances)
    return Figures(
        n=len(truth),
        accuracy=_share(truth == decided),
        expert_recall=_share((truth == decided)[own]),
        false_route_rate=_share(decided[~own] > 0),
        per_expert={name: _expert(confusion, place) for place, name in enumerate(experts, 1)},
        confusion=confusion.tolist(),
        labels=["none", *experts],
        ece=sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / len(truth)
        if bins
        else None,
        reliability=bins,
    )


def _share(right: Any) -> float:
    return float(right.mean()) if len(right) else 0.0


def _expert(confusion: Labels, place: int) -> dict[str, float]:
    hits, asked, given = confusion[place, place], confusion[place].sum(), confusion[:, place].sum()
    return {
        "recall": float(hits / asked) if asked else 0.0,
        "precision": float(hits / given) if given else 0.0,
        "n": int(asked),
    }


def _reliability(truth: Labels, decided: Labels, chances: Floats) -> tuple[Reliability, ...]:
    chance = chances[np.arange(len(decided)), decided]
    place = np.minimum((chance * BINS).astype(int), BINS - 1)
    return tuple(
        Reliability(
            low=number / BINS,
            high=(number + 1) / BINS,
            count=int((place == number).sum()),
            confidence=float(chance[place == number].mean()),
            accuracy=float((truth == decided)[place == number].mean()),
        )
        for number in range(BINS)
        if (place == number).any()
    )
