"""Judging an answer of the geography expert, or of any model. No torch."""

from __future__ import annotations

import re
from functools import cache

from experts.starter.geography.facts import facts, fold

_NEGATES = re.compile(r"\b(no|not|\w+n't|none|never)\b", re.I)
_DECLINES = re.compile(
    r"\bno (such|country|currency|capital)\b|\bnot (sure|aware|real|a country|the capital)\b"
    r"|(n't|\bnot) (exist|know|aware)|\bonly know\b|\b(unknown|fictional|invented|unsure)\b",
    re.I,
)
NO_CODES = frozenset({"ISO", "UK", "US", "USA", "UAE", "EU", "DRC", "DR"})
"""Capitals that name something else in a sentence."""
_CODE = re.compile(r"\b[A-Z]{2,3}\b")


def is_correct(text: str, answer: str) -> bool:
    """Whether `text` says what `answer` stands for.

    | answer | correct if the text |
    |---|---|
    | "none" | claims nothing: it says that there is no such thing, or that it is not known |
    | "yes", "no" | says that word, and as its last verdict |
    | "Hungary" | names this country and no other |
    | "any of: Germany; France" | names at least two of these countries and no other |
    | "Hungary: Austria; Serbia", "Iceland: none" | names all of these neighbours and no other |
    | "Budapest", "+36" | contains it (names: in any case) |
    | "HU; HUN", "euro; EUR" | contains one of these, and no other code |
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
        said = bool(expected) or bool(_NEGATES.search(text))
        return said and named - {country} == expected
    if known.get(fold(answer)):
        return named == {known[fold(answer)]}
    values = answer.split("; ")
    return any(_contains(text, value) for value in values) and not _wrong_codes(text, values)


def _contains(text: str, value: str) -> bool:
    if _CODE.fullmatch(value):  # "in" is not India's
        return value in _CODE.findall(text)
    return bool(re.search(rf"(?<![\w+]){re.escape(fold(value))}(?!\w| ?\d)", fold(text)))


def _wrong_codes(text: str, values: list[str]) -> bool:
    """Where codes are asked for: whether the text has others."""
    if not any(map(_CODE.fullmatch, values)):
        return False
    return bool({*_CODE.findall(text)} - NO_CODES - {*_CODE.findall(" ".join(values))})


def _countries_in(text: str) -> set[str]:
    """The countries and territories that a text names, by their canonical names."""
    return {_names()[name] for name in _pattern().findall(fold(text))} - {""}


@cache
def _names() -> dict[str, str]:
    """Canonical names by every other name, folded; "" for capitals ("Port of Spain")."""
    known = {fold(country.capital): "" for country in facts().countries}
    known |= {fold(territory.name): territory.name for territory in facts().territories}
    for country in facts().countries:
        for name in (*country.aliases, country.official, country.name):
            if len(name) > 2 and "." not in name and name != "the US":  # "us" is a word
                known[fold(name).removeprefix("the ")] = country.name
    return known


@cache
def _pattern() -> re.Pattern[str]:
    """Any of the names; the longest that fits, as "Niger" is in "Nigeria"."""
    longest = sorted(filter(None, _names()), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest))})\b")
