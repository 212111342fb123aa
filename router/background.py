"""General queries shipped with the project, and the two-part questions made with them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

_JOINTS = (
    "{first} Then {second}",
    "{first} And {second}",
    "{first} Also, {second}",
    "First: {first} Second: {second}",
    "In one sentence, {first} Then {second}",
    "Answer briefly: {first} After that, {second}",
)


@cache
def general_queries() -> tuple[str, ...]:
    """Queries that no expert is asked for: chat, writing, code, facts, several languages."""
    text = (files("router") / "data" / "background.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line.strip())


def two_part_questions(second: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` questions whose first part is a general query and whose second is from `second`."""
    rng = random.Random(seed)
    firsts = [query for query in general_queries() if len(query.split()) >= 4]
    questions = []
    for _ in range(count):
        first, then = rng.choice(firsts), rng.choice(second)
        questions.append(rng.choice(_JOINTS).format(first=_lower(first), second=_lower(then)))
    return questions


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
