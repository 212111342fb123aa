"""From labelled queries to what the joint fit needs: everything encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from router.background import general_queries, subject_questions
from router.dataset import DataError, Query
from router.encode import Messages
from router.framing import framed
from router.head import Floats
from router.joint import Training
from router.solver import Labels
from router.subjects import Subjects
from router.topics import common_questions, topic_questions, topic_shifts
from router.views import halves, views, with_query

MIN_QUERIES = 2
"""Of each expert, and of none; fewer cannot be checked on unseen ones."""
FEW = 40
"""Of an expert that has fewer queries, halves of them are encoded as well (cross-validated: about
0.8 points with 10 and with 25, nothing with 50 or more)."""

Progress = Callable[[int, int], None]


class Encodes(Protocol):
    """`router.offline.OfflineEncoder`, or a stand-in."""

    size: int

    def encode(self, prompts: Sequence[Messages], progress: Progress) -> Floats: ...


def experts_of(queries: Sequence[Query]) -> list[str]:
    """The experts' names, in the order of their rows."""
    return sorted({query.expert for query in queries if query.expert is not None})


def labels_of(queries: Sequence[Query], experts: Sequence[str]) -> np.ndarray:
    """`[n]`: 0 for none (or an expert that is not among `experts`), else 1 + its place."""
    place = {name: number for number, name in enumerate(experts, 1)}
    return np.array([place.get(query.expert or "", 0) for query in queries], np.int64)


def encode_training(queries: Sequence[Query], encoder: Encodes, progress: Progress) -> Training:
    """Encode queries, their views, the names, and general queries, in one go.

    Raises DataError if there are too few of something.
    """
    experts = experts_of(queries)
    labels = labels_of(queries, experts)
    counts = np.bincount(labels, minlength=len(experts) + 1)
    if not experts:
        raise DataError("no line names an expert")
    for name, count in zip(["null", *experts], counts, strict=True):
        if count < MIN_QUERIES:
            raise DataError(f"{name!r} has {count} queries; it needs at least {MIN_QUERIES}")
    seen_as = _views(queries, counts[labels] < FEW)
    view_of = np.array([number for number, _ in seen_as], np.int64)
    named = [topic_questions(name) for name in experts] + common_questions()
    asked = subject_questions()
    parts = [
        [query.messages for query in queries],
        [with_query(queries[number].messages, text) for number, text in seen_as],
        [framed(query.messages, number) for number, query in enumerate(queries)],
        [_ask(question) for subject in named for question in subject],
        [_ask(query) for query in general_queries()],
        [_ask(question.whole) for question in asked],
        [_ask(question.bare) for question in asked],
    ]
    features = encoder.encode([prompt for part in parts for prompt in part], progress)
    own, seen, put, topics, general, wholes, bares = np.split(
        features, np.cumsum([len(part) for part in parts])[:-1]
    )
    topics = topics.reshape(len(named), -1, encoder.size)
    subject_of = np.unique([question.subject for question in asked], return_inverse=True)[1]
    both = np.concatenate([wholes, bares]), np.concatenate([subject_of, subject_of])
    subjects = Subjects.fit(*both, general)
    kinds = _kinds(own, labels, seen, view_of, subjects)
    return Training(
        features=own,
        labels=labels,
        kinds=kinds,
        views=np.concatenate([seen, put]),
        view_of=np.concatenate([view_of, np.arange(len(queries))]),
        shifts=topic_shifts(topics[: len(experts)], topics[len(experts) :]),
        general=general,
        general_kind=int(kinds.max()) + 1,
        two_part=np.empty((0, encoder.size), np.float32),
    )


def _kinds(
    features: Floats, labels: Labels, views: Floats, view_of: Labels, subjects: Subjects
) -> Labels:
    """`[n]`: the kind of each query of no expert; 0 for the others. Halves of a query, which come
    behind its other view, count as views too."""
    none = np.flatnonzero(labels == 0)
    place = np.full(len(labels), -1)
    place[none] = np.arange(len(none))
    mine = labels[view_of] == 0
    kinds = np.zeros(len(labels), np.int64)
    kinds[none] = subjects.kinds(features[none], views[mine], place[view_of[mine]])
    return kinds


def _views(queries: Sequence[Query], few: Sequence[bool]) -> list[tuple[int, str]]:
    """Other texts for queries, by number; for those of which there are `few`, halves too."""
    texts = [query.text for query in queries]
    found = []
    for number, view in enumerate(views(texts)):
        own = [] if view is None else [view]
        if few[number]:
            own += halves(view or texts[number])
        found += [(number, text) for text in own]
    return found


def _ask(text: str) -> Messages:
    return [{"role": "user", "content": text}]
