"""Fit all experts' `start` rows together, and calibrate them on states the fit has not seen.

One multinomial regression over "no expert" and every expert. Out-of-fold scores then give the
threshold, and the scale on which scores are log-odds: P(expert) of a decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import log_softmax, softmax  # type: ignore[import-untyped]

from router.head import Floats
from router.solver import Labels, Space, regress
from router.topics import NAME_WORTH
from router.views import VIEW_WEIGHT

FOLDS = 4
GENERAL_WEIGHT = 0.03
"""Weight of a general query that Trivium ships, beside one of the user's own data with 1."""
FALSE_ROUTE_RATE = 0.02
"""Share of shipped general queries that may be routed."""
NEAR_MISS_RATE = 0.05
"""Share of the data's own general queries, near misses of experts, that may be routed."""
ENOUGH_NEAR_MISSES = 50
"""With as many of them the data says itself what is general; a shipped query may well belong to
one of its experts."""


@dataclass(frozen=True, eq=False)
class Training:
    """Encoded queries of all experts.

    Attributes:
        features: `[n, d]`, of the queries.
        labels: `[n]`: 0 where no expert should answer, else 1 + the expert's number.
        views: `[m, d]`, of second views (`router/views.py`).
        view_of: `[m]`: which query each is a view of.
        shifts: `[experts, questions, d]`: what the names say (`router/topics.py`).
        general: `[g, d]`, of the general queries that Trivium ships.
    """

    features: Floats
    labels: Labels
    views: Floats
    view_of: Labels
    shifts: Floats
    general: Floats


@dataclass(frozen=True, eq=False)
class JointFit:
    """Rows for raw features: expert e answers if `f·weights[e] + bias[e]` is the highest and > 0.

    Attributes:
        weights: `[experts, d]`.
        bias: `[experts]`; the threshold is in it.
        margin: the threshold; scores + margin are log-odds of "e" against "none".
    """

    weights: Floats
    bias: Floats
    margin: float

    def scores(self, features: Floats) -> Floats:
        """`[n, experts]` for features `[n, d]`."""
        scores: Floats = features @ self.weights.T + self.bias
        return scores

    def probabilities(self, scores: Floats) -> Floats:
        """`[n, 1 + experts]`: of "no expert" and each expert, from `[n, experts]` scores."""
        return probabilities(scores, self.margin)


def probabilities(scores: Floats, margin: float) -> Floats:
    """P of "no expert" and of each expert `[n, 1 + experts]`, from scores `[n, experts]`."""
    zeros = np.zeros((len(scores), 1), np.float32)
    result: Floats = softmax(np.concatenate([zeros, scores + margin], axis=1), axis=1)
    return result


def decisions(scores: Floats) -> Labels:
    """`[n]`: 0 for "no expert", else 1 + the winner's number; the gate's rule at the start."""
    winners: Labels = np.where(scores.max(axis=1) > 0, scores.argmax(axis=1) + 1, 0)
    return winners


def fit_joint(
    data: Training,
    false_route_rate: float = FALSE_ROUTE_RATE,
    near_miss_rate: float = NEAR_MISS_RATE,
) -> JointFit:
    """Fit and calibrate. Every expert needs at least one query; some queries need none."""
    scores, general = _unseen_scores(data)
    scale, shift = _temperature(scores, data.labels)
    scores, general = scores * scale + shift, general * scale + shift
    margin = _threshold(scores, general, data.labels, false_route_rate, near_miss_rate)
    everything = np.arange(len(data.labels)), np.arange(len(data.general))
    weights, bias = _rows(data, *everything)
    return JointFit(weights * scale, bias * scale + shift - margin, margin)


def _rows(data: Training, queries: Labels, general: Labels) -> tuple[Floats, Floats]:
    """Uncalibrated rows, fitted on the given queries, their views, and general queries."""
    seen = np.isin(data.view_of, queries)
    features = np.concatenate([data.features[queries], data.views[seen], data.general[general]])
    labels = np.concatenate(
        [data.labels[queries], data.labels[data.view_of[seen]], np.zeros(len(general), np.int64)]
    )
    parts = (len(queries), 1.0), (int(seen.sum()), VIEW_WEIGHT), (len(general), GENERAL_WEIGHT)
    weight = np.concatenate([np.full(count, value, np.float32) for count, value in parts])
    groups = labels.copy()
    groups[len(queries) + int(seen.sum()) :] = labels.max() + 1  # another kind of "no expert"
    space = Space.fit(features, groups)
    experts, questions, _ = data.shifts.shape
    if questions:
        named = data.features[queries].mean(axis=0) + data.shifts.reshape(experts * questions, -1)
        features = np.concatenate([features, named])
        labels = np.concatenate([labels, np.repeat(np.arange(experts) + 1, questions)])
        worth = np.full(experts * questions, NAME_WORTH / questions, np.float32)
        weight = np.concatenate([weight, worth])
    return space.rows(*regress(space.map(features), labels, weight))


def _unseen_scores(data: Training) -> tuple[Floats, Floats]:
    """Scores of every query and shipped general query, by fits that have not seen it."""
    from sklearn.model_selection import StratifiedKFold

    folds = max(2, min(FOLDS, int(np.bincount(data.labels).min())))
    scores = np.empty((len(data.labels), len(data.shifts)), np.float32)
    general = np.empty((len(data.general), len(data.shifts)), np.float32)
    queries = StratifiedKFold(folds, shuffle=True, random_state=0)
    shipped = np.arange(len(general)) % folds
    for fold, (seen, unseen) in enumerate(queries.split(data.features, data.labels)):
        weights, bias = _rows(data, seen, np.flatnonzero(shipped != fold))
        scores[unseen] = data.features[unseen] @ weights.T + bias
        general[shipped == fold] = data.general[shipped == fold] @ weights.T + bias
    return scores, general


def _temperature(scores: Floats, labels: Labels) -> tuple[float, float]:
    """Scale and shift that make unseen scores log-odds (Platt 1999; Guo et al. 2017)."""

    def loss(parameters: Floats) -> float:
        scaled = scores * np.exp(parameters[0]) + parameters[1]
        logits = np.concatenate([np.zeros((len(scores), 1)), scaled], axis=1)
        return -float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())

    found = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(found[0])), float(found[1])


def _threshold(
    scores: Floats, general: Floats, labels: Labels, shipped_rate: float, near_miss_rate: float
) -> float:
    """What a winner's log-odds must exceed.

    The one with the fewest mistakes on unseen queries, where two of three are an expert's; but
    never one that exceeds a target rate.
    """
    none = labels == 0
    best, right = scores.max(axis=1), scores.argmax(axis=1) + 1 == labels
    floor = float(np.quantile(best[none], 1 - near_miss_rate)) if none.any() else -np.inf
    if len(general) and none.sum() < ENOUGH_NEAR_MISSES:
        floor = max(floor, float(np.quantile(general.max(axis=1), 1 - shipped_rate)))
    candidates = np.concatenate([[floor], best[best > floor]])
    weight = np.where(none, 1 / max(1, none.sum()), 2 / (~none).sum())
    routed = best > candidates[:, None]
    value = (weight * np.where(none, ~routed, routed & right)).sum(axis=1)
    return float(candidates[int(value.argmax())])
