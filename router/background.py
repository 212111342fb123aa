"""General queries shipped with the project, and the two-part questions made with them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
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
_CHOICES = (
    "{question}\n{choices}\nAnswer:",
    "Multiple choice. {question}\n{choices}",
    "{question}\n{choices}\nWhich letter is right?",
)


@cache
def general_queries() -> tuple[str, ...]:
    """Queries that no expert is asked for: chat, writing, code, facts, several languages."""
    return tuple(_lines("background.txt"))


@cache
def near_misses() -> tuple[str, ...]:
    """Questions of many subjects as they are taught, some with choices: what an expert of one of
    these subjects is asked, and those of the others are not."""
    return tuple(_asked(n, line)[0] for n, line in enumerate(_lines("near_misses.txt")))


@dataclass(frozen=True)
class SubjectQuestion:
    """A question of a subject: as it is asked, and without its choices, if it has some."""

    subject: str
    whole: str
    bare: str


@cache
def subject_questions() -> tuple[SubjectQuestion, ...]:
    """Questions of many subjects, as taught and as asked in a chat, the same number of each."""
    lines = (line.split("\t") for line in _lines("subjects.txt"))
    return tuple(SubjectQuestion(name, *_asked(n, text)) for n, (name, text) in enumerate(lines))


def _asked(number: int, line: str) -> tuple[str, str]:
    """The question in a line, with its choices in one of several forms, and without them."""
    question, *choices = line.split(" | ")
    lettered = "\n".join(f"{a}. {b}" for a, b in zip("ABCD", choices, strict=False))
    form = _CHOICES[number % len(_CHOICES)] if choices else "{question}"
    return form.format(question=question, choices=lettered), question


def _lines(name: str) -> list[str]:
    text = (files("router") / "data" / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def joined(first: str, second: str, rng: random.Random) -> str:
    """One question of two parts."""
    return rng.choice(_JOINTS).format(first=_lower(first), second=_lower(second))


def two_part_questions(second: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` questions whose first part is a general query and whose second is from `second`."""
    rng = random.Random(seed)
    firsts = [query for query in general_queries() if len(query.split()) >= 4]
    return [joined(rng.choice(firsts), rng.choice(second), rng) for _ in range(count)]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
