"""Fit all experts' `start` rows together, and calibrate them on states the fit has not seen.

One multinomial regression over the kinds of queries that are no expert's (`router/subjects.py`) and
every expert. Out-of-fold scores then give the threshold, and the temperature at which scores are
log-odds: P(expert) of a decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import log_softmax, logsumexp, softmax  # type: ignore[import-untyped]

from router.head import Background, Floats
from router.solver import Labels, Space, regress
from router.topics import NAME_WORTH
from router.views import VIEW_WEIGHT

FOLDS = 4
QUERY, VIEW, SHIPPED, NAME, PARTS = range(5)
"""Kinds of states: queries, second views, shipped general queries, what names say, and questions
whose first part is no expert's."""
ALWAYS = -1
NEVER = -1e4
"""Score of a class that is not there."""
GENERAL_WEIGHT = 0.03
"""Weight of a general query that Trivium ships, beside one of the user's own data with 1."""
PARTS_WEIGHT = 0.5
"""Weight of a question whose first part is no expert's. More of it costs recall where examples are
few: with 10 of each of seven experts 75.5 % without, 74.2 % with 0.5, 69.7 % with 2."""
FALSE_ROUTE_RATE = 0.02
"""Share of shipped general queries that may be routed."""
NEAR_MISS_RATE = 0.04
"""Share of the data's own general queries, near misses of experts, that may be routed."""
BACKGROUND_WORTH = 8.0
"""How much all kinds of "no expert" together weigh in the fit, where an expert weighs 1."""
LEAST = -1.1
"""Log-odds against "none" that a winner has at least, a probability of a quarter: below, the count
of mistakes on few examples favours experts that take what is hardly or only partly theirs."""
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
        two_part: `[p, d]`, of questions whose first part is no expert's and whose second is: where
            their answers begin, it is no expert's turn yet.
    """

    features: Floats
    labels: Labels
    kinds: Labels
    views: Floats
    view_of: Labels
    shifts: Floats
    general: Floats
    general_kind: int
    two_part: Floats


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
    states = _states(data)
    scores = _unseen_scores(states)
    own, general = scores.only(states.kind == QUERY), scores.only(states.kind == SHIPPED)
    scale, shift = _temperature(own, data.labels)
    margin = _threshold(
        own.against_none(scale) + shift,
        general.against_none(scale) + shift,
        data.labels,
        false_route_rate,
        near_miss_rate,
    )
    rows = _rows(states, states.fold >= ALWAYS)
    weights, bias = states.space.rows(rows.weights, rows.bias)
    none = Background(*states.space.rows(rows.kinds.weights, rows.kinds.bias))
    return JointFit(
        weights * scale,
        bias * scale + shift - margin,
        margin,
        Background(none.weights * scale, none.bias * scale),
    )


@dataclass(frozen=True, eq=False)
class _States:
    """All states of a fit in one space, those of one kind one behind the other.

    Attributes:
        space: fitted on all of them: it is about form more than about labels.
        features: `[n, d]` in that space.
        kind: `[n]`: QUERY, VIEW, SHIPPED or NAME.
        classes: `[n]`: the kinds of "none" come first, then the experts.
        weight: `[n]`, within its class.
        fold: `[n]`: which fold's scores a state must not have shaped; ALWAYS: it always may.
        none: how many kinds of "none" there are; `experts`: how many experts.
    """

    space: Space
    features: Floats
    kind: Labels
    classes: Labels
    weight: Floats
    fold: Labels
    none: int
    experts: int


@dataclass(frozen=True, eq=False)
class _Rows:
    """Uncalibrated, for features in their space: the experts' rows and those of the kinds of
    "none"."""

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

    def only(self, chosen: npt.NDArray[np.bool_]) -> _Scores:
        """Those of the chosen states `[n]`."""
        return _Scores(self.experts[chosen], self.kinds[chosen])


def _states(data: Training) -> _States:
    owner = np.concatenate([np.arange(len(data.labels)), data.view_of])
    labels, shipped = data.labels[owner], data.labels.max() + 1
    features = np.concatenate([data.features, data.views, data.general])
    groups = np.concatenate([labels, np.full(len(data.general), shipped)])
    space, mapped = Space.fit(features, groups)
    none = _kinds(data)
    experts, questions, size = data.shifts.shape
    named = data.features.mean(axis=0) + data.shifts.reshape(experts * questions, size)
    folds = _folds(data.labels)
    parts = (  # how many there are, and the weight of each
        (len(data.labels), 1.0),
        (len(data.views), VIEW_WEIGHT),
        (len(data.general), GENERAL_WEIGHT),
        (len(named), NAME_WORTH / max(1, questions)),
        (len(data.two_part), PARTS_WEIGHT),
    )
    return _States(
        space=space,
        features=np.concatenate([mapped, space.map(named), space.map(data.two_part)]),
        kind=np.repeat([QUERY, VIEW, SHIPPED, NAME, PARTS], [count for count, _ in parts]),
        classes=np.concatenate(
            [
                np.where(labels == 0, data.kinds[owner], none + labels - 1),
                np.full(len(data.general), data.general_kind),
                none + np.repeat(np.arange(experts), questions),
                np.full(len(data.two_part), none - 1),
            ]
        ),
        weight=np.concatenate([np.full(count, value, np.float32) for count, value in parts]),
        fold=np.concatenate(
            [
                folds[owner],
                np.arange(len(data.general)) % (1 + folds.max()),
                np.full(len(named) + len(data.two_part), ALWAYS),
            ]
        ),
        none=none,
        experts=experts,
    )


def _kinds(data: Training) -> int:
    """How many kinds of "none" there are."""
    kinds = 1 + int(max(data.general_kind, *data.kinds[data.labels == 0]))
    return kinds + (1 if len(data.two_part) else 0)


def _folds(labels: Labels) -> Labels:
    """`[n]`: in which of a few folds a query is; every class is spread over all of them."""
    count = max(2, min(FOLDS, int(np.bincount(labels).min())))
    order = np.argsort(labels + np.random.default_rng(0).random(len(labels)))
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % count
    return folds


def _rows(states: _States, seen: npt.NDArray[np.bool_]) -> _Rows:
    """Fitted on the states that are `seen`."""
    there, labels = np.unique(states.classes[seen], return_inverse=True)  # a rare kind may lack
    weight = states.weight[seen]
    none = there < states.none
    worth = np.where(none, np.bincount(labels, weight), 0)
    worth = np.where(none, BACKGROUND_WORTH * worth / worth.sum(), 1.0)
    weights, bias = regress(states.features[seen], labels, weight, worth)
    # Relative to the first class.
    weights = np.concatenate([np.zeros((1, weights.shape[1]), np.float32), weights])
    bias = np.concatenate([np.zeros(1, np.float32), bias])
    kinds = _placed(weights[none], bias[none], there, states.none)
    return _Rows(weights[~none], bias[~none], kinds)


def _placed(weights: Floats, bias: Floats, there: Labels, kinds: int) -> Background:
    """The rows of the kinds that are there in their places; those of others never count."""
    all_weights = np.zeros((kinds, weights.shape[1]), np.float32)
    all_bias = np.full(kinds, NEVER, np.float32)
    places = there[there < kinds]
    all_weights[places], all_bias[places] = weights, bias
    return Background(all_weights, all_bias)


def _unseen_scores(states: _States) -> _Scores:
    """Scores of every state in a fold, by a fit that has not seen it."""
    count = len(states.features)
    experts = np.zeros((count, states.experts), np.float32)
    kinds = np.zeros((count, states.none), np.float32)
    for fold in range(states.fold.max() + 1):
        unseen = states.fold == fold
        rows = _rows(states, ~unseen)
        experts[unseen] = states.features[unseen] @ rows.weights.T + rows.bias
        kinds[unseen] = states.features[unseen] @ rows.kinds.weights.T + rows.kinds.bias
    return _Scores(experts, kinds)


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
    floor = max(floor, LEAST)
    candidates = np.concatenate([[floor], best[best > floor]])
    kept = np.searchsorted(np.sort(best[none]), candidates, "right")
    lost = np.searchsorted(np.sort(best[~none & right]), candidates, "right")
    value = kept / max(1, none.sum()) - 2 * lost / (~none).sum()
    return float(candidates[int(value.argmax())])
