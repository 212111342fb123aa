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
PAIRS = 100
"""General queries of two parts: what follows the first part is the meta LLM's as well."""

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class General:
    """General traffic.

    Attributes:
        start: `[n, features]`, where answers begin; of the queries as they stand, and framed
            (`router/framing.py`).
        near: `[k, features]`, the same of near misses and of questions of many subjects
            (`router/background.py`), every other one of which is framed as well.
        subject: `[k]`: the number of the subject that each of those is of, from 1; 0: not known.
        ends: `[m, features]`, at ends of sentences inside the answers.
        topics: `[questions, features]`, the mean state of each of `topic_questions` over common
            subjects.
        openings: queries, and how their answers begin, up to the end of a sentence.
    """

    start: Floats
    near: Floats
    subject: Labels
    ends: Floats
    topics: Floats
    openings: tuple[tuple[str, str], ...]


async def encode_general(encoder: Encoder, say: Progress = lambda text: None) -> General:
    """Have the meta LLM answer the general queries. Raises MetaError."""
    queries = list(general_queries())
    asked = queries + two_part_questions(queries, PAIRS, seed=1)
    taught, topics = subject_questions(), common_questions()
    known = np.unique([question.subject for question in taught], return_inverse=True)[1] + 1
    subject = np.concatenate([np.zeros(len(near_misses()), np.int64), known, known[::2]])
    near = [_ask(query) for query in (*near_misses(), *(question.bare for question in taught))]
    near += [framed(_ask(question.bare), n) for n, question in enumerate(taught[::2])]
    put = [framed(_ask(query), n) for n, query in enumerate(queries)]
    begun = [*near, *put, *(_ask(question) for topic in topics for question in topic)]
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
    near_states, framed_states, named = np.split(states, [len(near), len(near) + len(put)])
    return General(
        start=np.concatenate([*(w.states[:1] for w in written), framed_states]),
        near=near_states,
        subject=subject,
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
