"""Fit one expert's row of the head beside rows that stay as they are.

The backbone is frozen, so fitting is a small linear problem (`router/solver.py`): for each of the
head's three questions a regularised logistic regression, whose bias is then moved so that general
traffic stays under a target rate. Where answers begin, the new row competes with those that are
there: P(new) = e^s / (e^s + e^none + Σ e^others), and only s is fitted. So a new expert takes over
what it explains better, and the others' rows and the background need not change. All experts at
once: `router/joint.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import logsumexp  # type: ignore[import-untyped]

from router.head import START, UNUSED, Background, Floats, HeadRow
from router.question import Chosen, Part, fit_question, raw_row
from router.solver import Labels, Space, regress_against
from router.topics import NAME_WORTH
from router.views import VIEW_WEIGHT

FALSE_ROUTE_RATE = 0.02
"""Share of general queries that the first expert may be given at the first token, or may be
thought pending for it; of n experts, the last one may be given the nth part."""
NEAR_MISS_RATE = 0.05
"""The same of near misses."""
STOLEN_RATE = 0.02
"""Share of the other experts' examples that may change hands."""
TURN_RATE = 0.4
"""Share of general sentence ends that may pass as the expert's turn: it only says when, the
remembered `pending` says whether."""
TURN_PRIOR = 2.0
"""Log-odds that it is the turn of an expert that is pending, at any end of a sentence. First parts
are mostly short; without it two in five second parts never reached their expert
(`tests/benchmarks/second_parts.py`)."""
FOLDS = 4
OWN, GENERAL, NEAR, LATER, COUNTER, RIVALS = range(6)
"""Groups of states: the expert's queries, their views and its name; general queries; near misses;
two-part questions, which are its later; counter-examples; the first of the rivals'. Each weighs
the same in a fit."""
DOUBTFUL = 0.1
"""Share of the general queries that may turn out to be the expert's own subject."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Features that one kind of conversation gave.

    Attributes:
        start: `[n, features]`, where answers begin.
        ends: `[m, features]`, at ends of sentences inside the answers; m may be 0.
    """

    start: Floats
    ends: Floats


@dataclass(frozen=True, eq=False)
class Hints:
    """What is known of an expert's queries beside them.

    Attributes:
        views: `[m, features]`, of second views (`router/views.py`).
        view_of: `[m]`: which query each is a view of.
        shifts: `[k, features]`: what the expert's name says (`router/topics.py`).
    """

    views: Floats
    view_of: Labels
    shifts: Floats


@dataclass(frozen=True, eq=False)
class Rivals:
    """The other experts' queries.

    Attributes:
        features: `[n, features]`.
        owner: `[n]`, the number of the expert, from 0.
    """

    features: Floats
    owner: Labels


@dataclass(frozen=True, eq=False)
class Taught:
    """Questions of many subjects.

    Attributes:
        features: `[n, features]`.
        views: `[m, features]`, of some of them as people put them (`router/framing.py`).
        view_of: `[m]`: which each is a view of.
    """

    features: Floats
    views: Floats
    view_of: Labels


def fit_row(
    own: Evidence,
    hints: Hints,
    two_part: Evidence,
    counter: Floats,
    rivals: Rivals,
    rows: Sequence[HeadRow],
    background: Background,
    general: Evidence,
    near: Floats,
    taught: Taught,
) -> HeadRow:
    """The row of an expert.

    Args:
        own: its example queries; their `ends` are places where it should carry on.
        hints: what else is known of them.
        two_part: questions of which the meta LLM answers the first part and the expert the
            second; its turn comes at the `ends`.
        counter: `[c, features]`, queries like its own that are not for it.
        rivals: the other experts' queries.
        rows: the other experts' rows, and `background`, which stay as they are.
        general: ordinary traffic.
        near: `[k, features]`, near misses: questions of many subjects, maybe of this one too.
        taught: many more of them, which only count where answers begin: they would keep the expert
            from waiting for its part of a request.
    """
    share = 1 / (1 + len(rows))
    named = np.concatenate([own.start, rivals.features, general.start]).mean(axis=0) + hints.shifts
    folds = max(2, min(FOLDS, len(own.start)))
    kinds = [
        _Kind(own.start, OWN, own=1.0, request=True),
        _Kind(hints.views, OWN, own=VIEW_WEIGHT, fold=hints.view_of % folds),
        _Kind(named, OWN, own=NAME_WORTH / max(1, len(named)), fold=np.full(len(named), -1)),
        _Kind(two_part.start, LATER, request=True),
        _Kind(general.start, GENERAL, request=True),
        _Kind(near, NEAR, request=True),
        _Kind(taught.features, NEAR),
        _Kind(counter, COUNTER, request=True),
        _Kind(taught.views, NEAR, fold=taught.view_of % folds),
        _Kind(rivals.features, RIVALS + rivals.owner, request=True),
    ]
    raw = _start_states(kinds, folds, rows, background)
    space, states = _in_space(raw)
    start, states = _fit_start(space, states, share)
    pending = _fit_pending(space, states, share)
    turn = _fit_turn(np.concatenate([own.ends, two_part.ends]), general.ends)
    parts = (start, pending, turn)
    return HeadRow(
        np.stack([part.weights for part in parts]),
        np.array([part.bias - part.margin for part in parts], np.float32),
        np.array([part.margin for part in parts], np.float32),
    )


@dataclass(frozen=True, eq=False)
class _Start:
    """The states of one fit of `start`, those of one kind one behind the other.

    Attributes:
        features: `[n, features]`, raw or in a space.
        own: `[n]`: the share of an example that a state stands for; 0: it is none.
        group: `[n]`: OWN, GENERAL, NEAR, LATER, or RIVALS + the number of a rival.
        request: `[n]`: whether it shows if something in a request is for the expert.
        fold: `[n]`: which fold's scores a state must not have shaped; -1: it always may.
        none: `[n]`: the background's log-odds.
        offset: `[n]`: log(e^none + Σ e^score) over the rows that are there.
        best: `[n]`: the best of their thresholded scores, at least `none`.
    """

    features: Floats
    own: Floats
    group: Labels
    request: Chosen
    fold: Labels
    none: Floats
    offset: Floats
    best: Floats

    def only(self, chosen: Chosen) -> _Start:
        """Those chosen `[n]`."""
        return _Start(*(getattr(self, field.name)[chosen] for field in fields(self)))


def _in_space(states: _Start) -> tuple[Space, _Start]:
    """A space fitted on the states, and the states in it."""
    _, groups = np.unique(states.group, return_inverse=True)
    space, mapped = Space.fit(states.features, groups)
    return space, replace(states, features=mapped)


def _fit_start(space: Space, states: _Start, share: float) -> tuple[Part, _Start]:
    """First with all near misses and general queries; those that turn out to be of the expert's
    own subject are then left out: also the states that remain. `share`: of the target rates, this
    expert's."""
    scores, weights, bias = _scores(states)
    doubtful = _doubtful(scores, states)
    if doubtful.any():
        states = states.only(~doubtful)
        scores, weights, bias = _scores(states)
    scale, shift = _calibrate(scores, states)
    margin = _margin(scores * scale + shift, states, share)
    row, intercept = raw_row(space, weights, bias)
    return Part(row * scale, intercept * scale + shift, margin), states


@dataclass(frozen=True, eq=False)
class _Kind:
    """States `[n, features]` of one kind; `group`, `own` and `request` as in `_Start`. Without a
    `fold` they take turns."""

    features: Floats
    group: int | Labels
    own: float = 0.0
    request: bool = False
    fold: Labels | None = None


def _start_states(
    kinds: Sequence[_Kind], folds: int, rows: Sequence[HeadRow], background: Background
) -> _Start:
    features = np.concatenate([kind.features for kind in kinds])
    sizes = [len(kind.features) for kind in kinds]
    turns = [np.arange(size) % folds for size in sizes]
    none = background.log_odds(features)
    thresholded = np.stack([none, *(row.scores("start", features) for row in rows)])
    margins = np.array([0.0, *(row.margin[START] for row in rows)])[:, None]
    return _Start(
        features=features,
        own=np.repeat(np.array([kind.own for kind in kinds], np.float32), sizes),
        group=np.concatenate(
            [np.broadcast_to(kind.group, n) for kind, n in zip(kinds, sizes, strict=True)]
        ),
        request=np.repeat([kind.request for kind in kinds], sizes),
        fold=np.concatenate(
            [
                turn if kind.fold is None else kind.fold
                for kind, turn in zip(kinds, turns, strict=True)
            ]
        ),
        none=none,
        offset=logsumexp(thresholded + margins, axis=0),
        best=thresholded.max(axis=0),
    )


def _scores(states: _Start) -> tuple[Floats, Floats, float]:
    """Log-odds `[n]` of each state by a fit that has not seen it (0: there is none); weights and
    bias of a fit that has seen all. The expert, nobody and each rival weigh the same."""
    mapped = states.features
    weight = np.where(states.group == OWN, states.own, 1.0).astype(np.float32)
    weight /= np.bincount(states.group, weight)[states.group]
    labels = (states.group == OWN).astype(np.int64)

    def fit(seen: Chosen) -> tuple[Floats, float]:
        return regress_against(mapped[seen], labels[seen], weight[seen], states.offset[seen])

    scores = np.zeros(len(labels), np.float32)
    for fold in range(states.fold.max() + 1):
        weights, bias = fit(states.fold != fold)
        unseen = states.fold == fold
        scores[unseen] = mapped[unseen] @ weights + bias
    return scores, *fit(np.full(len(labels), True))


def _doubtful(scores: Floats, states: _Start) -> Chosen:
    """`[n]`: general queries and near misses that score like the expert's own examples; a few at
    most."""
    own, none = _examples(states), np.isin(states.group, (GENERAL, NEAR))
    scores = scores - states.none
    if not own.any() or not none.any():
        return np.zeros(len(scores), bool)
    least = np.quantile(scores[none], 1 - DOUBTFUL)
    found: Chosen = none & (scores > max(least, np.quantile(scores[own], 0.25)))
    return found


def _examples(states: _Start) -> Chosen:
    """`[n]`: the expert's examples themselves, without views and names."""
    chosen: Chosen = (states.own == 1.0) & (states.fold >= 0)
    return chosen


def _calibrate(scores: Floats, states: _Start) -> tuple[float, float]:
    """Scale and shift that make unseen scores log-odds, with targets that are not quite 0 and 1
    (Platt 1999), so that what can be told apart perfectly is not called certain."""
    judged = _examples(states) | (states.group != OWN)
    own, group = _examples(states)[judged], states.group[judged]
    weight = 1.0 / np.bincount(group)[group]
    targets = np.where(own, (own.sum() + 1) / (own.sum() + 2), 1 / ((~own).sum() + 2))

    def loss(parameters: Floats) -> float:
        z = scores[judged] * np.exp(parameters[0]) + parameters[1] - states.offset[judged]
        losses = targets * np.logaddexp(0, -z) + (1 - targets) * np.logaddexp(0, z)
        return float((weight * losses).sum())

    found = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(found[0])), float(found[1])


def _margin(scores: Floats, states: _Start, share: float) -> float:
    """What log-odds against "none" must exceed: 0, or as much as no more than a `share` of a target
    rate of unseen queries does."""
    lead, scores = scores - states.best, scores - states.none
    limits = [(states.group == GENERAL, scores, FALSE_ROUTE_RATE * share)]
    limits += [(states.group == NEAR, scores, NEAR_MISS_RATE * share)]
    limits += [(states.group == COUNTER, scores, NEAR_MISS_RATE)]
    limits += [(states.group >= RIVALS, lead, STOLEN_RATE)]
    found = (float(np.quantile(v[group], 1 - rate)) for group, v, rate in limits if group.any())
    return max(0.0, *found)


def _fit_pending(space: Space, states: _Start, share: float) -> Part:
    """Whether something in a request is for the expert: all of it, or a later part."""
    states = states.only(states.request)
    asked = np.isin(states.group, (OWN, LATER))
    rate = share * FALSE_ROUTE_RATE
    return fit_question(space, states.features, asked, states.group == GENERAL, rate)


def _fit_turn(ends: Floats, general: Floats) -> Part:
    """Whether it is the expert's turn at the end of a sentence."""
    features = np.concatenate([general, ends])
    its = np.repeat([False, True], [len(general), len(ends)])
    if not len(ends) or not len(general):
        return Part(np.zeros(features.shape[1], np.float32), UNUSED, 0.0)
    space, mapped = Space.fit(features, its.astype(np.int64))
    return fit_question(space, mapped, its, ~its, TURN_RATE, TURN_PRIOR)
