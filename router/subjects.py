"""Which of many subjects a query is of, as far as the meta LLM's features tell.

What is no expert's is of many kinds, and one linear class for all of them is a poor rival of the
experts: a query of another subject than theirs is told apart best by a class of that subject. So
the joint fit (`router/joint.py`) has kinds of them. A classifier fitted on questions that Trivium
ships (`data/subjects.txt`) sorts the queries that somebody brings; where nobody brings any, the
questions themselves stand for "no expert", without those of the experts' own subjects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router.head import Floats
from router.solver import Labels, Space, between, regress

LEAST = 4
"""Queries that a kind has at least; those of rarer subjects join the nearest kind."""
COMMON = 1 / 3
"""Share of an expert's examples that make a subject its own."""


@dataclass(frozen=True, eq=False)
class Subjects:
    """A linear classifier of raw features.

    Attributes:
        weights: `[subjects, features]`.
        bias: `[subjects]`.
    """

    weights: Floats
    bias: Floats

    @classmethod
    def fit(cls, questions: Floats, subject_of: Labels, general: Floats) -> Subjects:
        """From the features `[n, features]` of questions; the number of the subject of each, from
        0; and the features of general queries, which are of none."""
        none = int(subject_of.max()) + 1
        features = np.concatenate([questions, general])
        labels = np.concatenate([subject_of, np.full(len(general), none)])
        space, mapped = Space.fit(features, labels)
        basis = between(mapped, labels)
        weights, bias = regress(mapped @ basis.T, labels, np.ones(len(labels), np.float32))
        rows, bias = space.rows(weights @ basis, bias)
        # Relative to the first subject; the last row is that of no subject.
        zero = np.zeros((1, rows.shape[1]), np.float32)
        return cls(np.concatenate([zero, rows[:-1]]), np.concatenate([[0], bias[:-1]]))

    def kinds(self, features: Floats, views: Floats, view_of: Labels) -> Labels:
        """`[n]`: numbers, from 0, of the kinds that queries with these features are of.

        `views` `[m, features]` are second views of queries, `view_of` `[m]` says of which.
        """
        scores = self._scores(features, views, view_of)
        counts = np.bincount(scores.argmax(axis=1), minlength=len(self.bias))
        if not len(features) or counts.max() < LEAST:
            return np.zeros(len(features), np.int64)
        common = np.flatnonzero(counts >= LEAST)
        nearest = common[scores[:, common].argmax(axis=1)]
        return np.unique(nearest, return_inverse=True)[1].astype(np.int64)

    def nearest(self, features: Floats) -> Labels:
        """`[n]`: the subject that each query with these features is nearest to."""
        found: Labels = (features @ self.weights.T + self.bias).argmax(axis=1)
        return found

    def common(self, features: Floats, views: Floats, view_of: Labels) -> Labels:
        """Subjects that at least a share COMMON of these queries are of; views as in `kinds`."""
        nearest = self._scores(features, views, view_of).argmax(axis=1)
        counts = np.bincount(nearest, minlength=len(self.bias))
        return np.flatnonzero(counts >= max(1.0, COMMON * len(features)))

    def _scores(self, features: Floats, views: Floats, view_of: Labels) -> Floats:
        scores: Floats = features @ self.weights.T + self.bias
        np.add.at(scores, view_of, views @ self.weights.T + self.bias)
        return scores
