"""Fit all experts' `start` rows together, and calibrate them on states the fit has not seen.

One multinomial regression over the kinds of queries that are no expert's (`router/subjects.py`) and
every expert. Out-of-fold scores then give the threshold, and the temperature at which scores are
log-odds: P(expert) of a decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import log_softmax, logsumexp, softmax  # type: ignore[import-untyped]

from router.head import Background, Floats
from router.solver import Labels, Space, regress
from router.topics import NAME_WORTH
from router.views import VIEW_WEIGHT

FOLDS = 4
NEVER = -1e4
"""Score of a class that is not there."""
GENERAL_WEIGHT = 0.03
"""Weight of a general query that Trivium ships, beside one of the user's own data with 1."""
FALSE_ROUTE_RATE = 0.02
"""Share of shipped general queries that may be routed."""
NEAR_MISS_RATE = 0.05
"""Share of the data's own general queries, near misses of experts, that may be routed."""
BACKGROUND_WORTH = 8.0
"""How much all kinds of "no expert" together weigh in the fit, where an expert weighs 1."""
ENOUGH_NEAR_MISSES = 50
"""With as many of them the data says itself what is general; a shipped query may well belong to
one of its experts."""


@dataclass(frozen=True, eq=False)
class Training:
    """Encoded queries of all experts.

    Attributes:
        features: `[n, d]`, of the queries.
        labels: `[n]`: 0 where no expert should answer, else 1 + the expert's number.
        kinds: `[n]`: where the label is 0, the number of the query's kind, from 0.
        views: `[m, d]`, of second views (`router/views.py`).
        view_of: `[m]`: which query each is a view of.
        shifts: `[experts, questions, d]`: what the names say (`router/topics.py`).
        general: `[g, d]`, of the general queries that Trivium ships.
        general_kind: the kind that those are of.
    """

    features: Floats
    labels: Labels
    kinds: Labels
    views: Floats
    view_of: Labels
    shifts: Floats
    general: Floats
    general_kind: int


@dataclass(frozen=True, eq=False)
class JointFit:
    """Rows for raw features: expert e answers if its score is the highest and > 0.

    Attributes:
        weights: `[experts, d]`.
        bias: `[experts]`; the threshold is in it.
        margin: the threshold; scores + margin are log-odds of "e" against "none".
        background: "none".
    """

    weights: Floats
    bias: Floats
    margin: float
    background: Background

    def scores(self, features: Floats) -> Floats:
        """`[n, experts]` for features `[n, d]`."""
        own: Floats = features @ self.weights.T + self.bias
        return own - self.background.log_odds(features)[:, None]

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
    own, general = _unseen_scores(data)
    scale, shift = _temperature(own, data.labels)
    margin = _threshold(
        own.against_none(scale) + shift,
        general.against_none(scale) + shift,
        data.labels,
        false_route_rate,
        near_miss_rate,
    )
    rows = _rows(data, np.arange(len(data.labels)), np.arange(len(data.general)))
    return JointFit(
        rows.weights * scale,
        rows.bias * scale + shift - margin,
        margin,
        Background(rows.kinds.weights * scale, rows.kinds.bias * scale),
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """Uncalibrated: the experts' rows and those of the kinds of "none"."""

    weights: Floats
    bias: Floats
    kinds: Background


@dataclass(frozen=True, eq=False)
class _Scores:
    """Of some states: the experts' `[n, experts]` and the kinds' `[n, kinds]`."""

    experts: Floats
    kinds: Floats

    def against_none(self, scale: float) -> Floats:
        """Log-odds `[n, experts]` against all kinds, with every score times `scale`."""
        none = logsumexp(self.kinds * scale, axis=1, keepdims=True)
        odds: Floats = self.experts * scale - none
        return odds

    def fill(self, places: Labels, features: Floats, rows: _Rows) -> None:
        """Put in the scores of features `[m, d]` at the m places."""
        self.experts[places] = features @ rows.weights.T + rows.bias
        self.kinds[places] = features @ rows.kinds.weights.T + rows.kinds.bias


def _rows(data: Training, queries: Labels, general: Labels) -> _Rows:
    """Fitted on the given queries, their views, and general queries, which are a kind too."""
    seen = np.isin(data.view_of, queries)
    owner = np.concatenate([queries, data.view_of[seen]])
    features = np.concatenate([data.features[queries], data.views[seen], data.general[general]])
    labels, shipped = data.labels[owner], data.labels.max() + 1
    groups = np.concatenate([labels, np.full(len(general), shipped)])
    space, mapped = Space.fit(features, groups)
    count = _kinds(data)
    classes = np.where(labels == 0, data.kinds[owner], count + labels - 1)
    classes = np.concatenate([classes, np.full(len(general), data.general_kind)])
    parts = (len(queries), 1.0), (int(seen.sum()), VIEW_WEIGHT), (len(general), GENERAL_WEIGHT)
    weight = np.concatenate([np.full(size, value, np.float32) for size, value in parts])
    experts, questions, _ = data.shifts.shape
    if questions:
        named = data.features[queries].mean(axis=0) + data.shifts.reshape(experts * questions, -1)
        mapped = np.concatenate([mapped, space.map(named)])
        classes = np.concatenate([classes, count + np.repeat(np.arange(experts), questions)])
        worth = np.full(experts * questions, NAME_WORTH / questions, np.float32)
        weight = np.concatenate([weight, worth])
    return _solve(space, mapped, classes, weight, count)


def _kinds(data: Training) -> int:
    """How many kinds of "none" there are."""
    return 1 + int(max(data.general_kind, *data.kinds[data.labels == 0]))


def _solve(space: Space, mapped: Floats, classes: Labels, weight: Floats, kinds: int) -> _Rows:
    """Rows for raw features; the first `kinds` classes are those of "none"."""
    there, labels = np.unique(classes, return_inverse=True)  # a fold may lack a rare kind
    none = there < kinds
    worth = np.where(none, np.bincount(labels, weight), 0)
    worth = np.where(none, BACKGROUND_WORTH * worth / worth.sum(), 1.0)
    found = regress(mapped, labels, weight, worth)
    weights, bias = space.rows(*found)
    # Relative to the first class.
    weights = np.concatenate([np.zeros((1, weights.shape[1]), np.float32), weights])
    bias = np.concatenate([np.zeros(1, np.float32), bias])
    return _Rows(weights[~none], bias[~none], _placed(weights[none], bias[none], there, kinds))


def _placed(weights: Floats, bias: Floats, there: Labels, kinds: int) -> Background:
    """The rows of the kinds that are there in their places; those of others never count."""
    all_weights = np.zeros((kinds, weights.shape[1]), np.float32)
    all_bias = np.full(kinds, NEVER, np.float32)
    places = there[there < kinds]
    all_weights[places], all_bias[places] = weights, bias
    return Background(all_weights, all_bias)


def _unseen_scores(data: Training) -> tuple[_Scores, _Scores]:
    """Scores of every query and shipped general query, by fits that have not seen it."""
    from sklearn.model_selection import StratifiedKFold

    folds = max(2, min(FOLDS, int(np.bincount(data.labels).min())))
    own, general = (
        _Scores(
            np.empty((n, len(data.shifts)), np.float32), np.empty((n, _kinds(data)), np.float32)
        )
        for n in (len(data.labels), len(data.general))
    )
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    shipped = np.arange(len(data.general)) % folds
    for fold, (seen, unseen) in enumerate(split.split(data.features, data.labels)):
        rows = _rows(data, seen, np.flatnonzero(shipped != fold))
        own.fill(unseen, data.features[unseen], rows)
        general.fill(np.flatnonzero(shipped == fold), data.general[shipped == fold], rows)
    return own, general


def _temperature(scores: _Scores, labels: Labels) -> tuple[float, float]:
    """Scale and shift that make unseen scores log-odds (Platt 1999; Guo et al. 2017)."""

    def loss(parameters: Floats) -> float:
        scaled = scores.against_none(float(np.exp(parameters[0]))) + parameters[1]
        logits = np.concatenate([np.zeros((len(scaled), 1)), scaled], axis=1)
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
