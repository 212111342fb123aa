"""From labelled queries to what the joint fit needs: everything encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from router.background import general_queries
from router.dataset import DataError, Query
from router.encode import Messages
from router.head import Floats
from router.joint import Training
from router.topics import common_questions, topic_questions, topic_shifts
from router.views import views, with_query

MIN_QUERIES = 2
"""Of each expert, and of none; fewer cannot be checked on unseen ones."""

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
    found = views([query.text for query in queries])
    view_of = [number for number, view in enumerate(found) if view is not None]
    subjects = [topic_questions(name) for name in experts] + common_questions()
    parts = [
        [query.messages for query in queries],
        [with_query(queries[number].messages, found[number] or "") for number in view_of],
        [_ask(question) for subject in subjects for question in subject],
        [_ask(query) for query in general_queries()],
    ]
    features = encoder.encode([prompt for part in parts for prompt in part], progress)
    own, seen, topics, general = np.split(features, np.cumsum([len(part) for part in parts])[:-1])
    topics = topics.reshape(len(subjects), -1, encoder.size)
    return Training(
        features=own,
        labels=labels,
        views=seen,
        view_of=np.array(view_of, np.int64),
        shifts=topic_shifts(topics[: len(experts)], topics[len(experts) :]),
        general=general,
    )


def _ask(text: str) -> Messages:
    return [{"role": "user", "content": text}]
