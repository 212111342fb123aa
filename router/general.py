"""General traffic as a meta LLM sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from router.background import (
    general_queries,
    near_misses,
    subject_questions,
    two_part_questions,
)
from router.encode import Encoder, Messages
from router.framing import framed
from router.head import Floats
from router.meta_client import Written
from router.sentences import sentence_ends
from router.solver import Labels
from router.topics import common_questions

ANSWER_TOKENS = 32
"""How far answers to general queries are followed."""
FRAMED_STEP = 2
"""Of the questions of many subjects, every second one is framed."""
PAIRS = 100
"""General queries of two parts: what follows the first part is the meta LLM's as well."""

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class General:
    """General traffic.

    Attributes:
        start: `[n, features]`, where answers begin.
        near: `[k, features]`, the same of near misses and of questions of many subjects
            (`router/background.py`).
        subject: `[k]`: the number of the subject that each of those is of, from 1; 0: not known.
        framed: `[f, features]`, some of `near` as people put them (`router/framing.py`).
        framed_of: `[f]`: which of `near` each is a view of.
        ends: `[m, features]`, at ends of sentences inside the answers.
        topics: `[questions, features]`, the mean state of each of `topic_questions` over common
            subjects.
        openings: queries, and how their answers begin, up to the end of a sentence.
    """

    start: Floats
    near: Floats
    subject: Labels
    framed: Floats
    framed_of: Labels
    ends: Floats
    topics: Floats
    openings: tuple[tuple[str, str], ...]


async def encode_general(encoder: Encoder, say: Progress = lambda text: None) -> General:
    """Have the meta LLM answer the general queries. Raises MetaError."""
    queries = list(general_queries())
    asked = queries + two_part_questions(queries, PAIRS, seed=1)
    taught, topics = subject_questions(), common_questions()
    near = [*near_misses(), *(question.bare for question in taught)]
    framed_of = np.arange(len(near_misses()), len(near), FRAMED_STEP)
    begun = [
        *(_ask(query) for query in near),
        *(framed(_ask(near[place]), n) for n, place in enumerate(framed_of)),
        *(_ask(question) for topic in topics for question in topic),
    ]
    total = len(asked) + len(begun)
    written = await encoder.encode(
        [_ask(query) for query in asked],
        ANSWER_TOKENS,
        lambda done: say(f"encoding general queries {done}/{total}"),
    )
    states = await encoder.states(
        begun,
        lambda done: say(f"encoding general queries {len(asked) + done}/{total}"),
    )
    known = np.unique([question.subject for question in taught], return_inverse=True)[1] + 1
    near_states, put, named = np.split(states, [len(near), len(near) + len(framed_of)])
    return General(
        start=np.concatenate([w.states[:1] for w in written]),
        near=near_states,
        subject=np.concatenate([np.zeros(len(near) - len(known), np.int64), known]),
        framed=put,
        framed_of=framed_of,
        ends=np.concatenate([w.states[sentence_ends(w.tokens)] for w in written]),
        topics=named.reshape(len(topics), -1, named.shape[1]).mean(axis=0),
        openings=_openings(queries, written),
    )


def _openings(queries: Sequence[str], written: Sequence[Written]) -> tuple[tuple[str, str], ...]:
    """Of queries long enough to be the first part of a question."""
    found = []
    for query, answer in zip(queries, written, strict=False):
        ends = [end for end in sentence_ends(answer.tokens) if end >= 4]
        if ends and len(query.split()) >= 4:
            found.append((query, "".join(answer.tokens[: ends[0]])))
    return tuple(found)


def _ask(query: str) -> Messages:
    return [{"role": "user", "content": query}]
