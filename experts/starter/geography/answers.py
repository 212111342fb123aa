"""Judging an answer of the geography expert, or of any model. No torch."""

from __future__ import annotations

import re
from functools import cache

from experts.starter.geography.facts import facts, fold

_DECLINES = re.compile(
    r"\b(no|not|\w+n't|never|only know|unknown|fictional|invented|unsure)\b", re.I
)


def is_correct(text: str, answer: str) -> bool:
    """Whether `text` says what `answer` stands for.

    | answer | correct if the text |
    |---|---|
    | "none" | claims nothing: it says that there is no such thing, or that it is not known |
    | "yes", "no" | says that word, and as its last verdict |
    | "Hungary" | names this country and no other |
    | "any of: Germany; France" | names at least two of these countries and no other |
    | "Hungary: Austria; Serbia", "Iceland: none" | names all of these neighbours and no other |
    | "Budapest", "+36", "HU; HUN" | contains one of these as it stands (names: in any case) |
    """
    if answer == "none":
        return bool(_DECLINES.search(text))
    if answer in ("yes", "no"):
        verdicts = re.findall(r"\b(yes|no)\b", text, re.I)
        return bool(verdicts) and verdicts[-1].lower() == answer
    named, known = _countries_in(text), _names()
    if answer.startswith("any of: "):
        owners = set(answer.removeprefix("any of: ").split("; "))
        return len(named) > 1 and named <= owners
    country, colon, neighbours = answer.partition(": ")
    if colon:
        expected = set() if neighbours == "none" else set(neighbours.split("; "))
        said = bool(expected) or bool(_DECLINES.search(text))
        return said and named - {country} == expected
    if fold(answer) in known:
        return named == {known[fold(answer)]}
    return any(_contains(text, value) for value in answer.split("; "))


def _contains(text: str, value: str) -> bool:
    if re.fullmatch(r"[A-Z]{2,3}", value):  # a code: "in" is not India's
        return bool(re.search(rf"\b{value}\b", text))
    return bool(re.search(rf"(?<![\w+]){re.escape(fold(value))}(?!\w| ?\d)", fold(text)))


def _countries_in(text: str) -> set[str]:
    """The countries and territories that a text names, by their canonical names."""
    return {_names()[name] for name in _pattern().findall(fold(text))}


@cache
def _names() -> dict[str, str]:
    """Canonical names by every other name, both folded alike."""
    known = {fold(territory.name): territory.name for territory in facts().territories}
    for country in facts().countries:
        for name in (*country.aliases, country.name):
            if len(name) > 2 and "." not in name and name not in ("the US", "Republic of China"):
                known[fold(name).removeprefix("the ")] = country.name
    return known


@cache
def _pattern() -> re.Pattern[str]:
    """Any of the names; the longest that fits, as "Niger" is in "Nigeria"."""
    longest = sorted(_names(), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest))})\b")
