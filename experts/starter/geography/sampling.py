"""Random questions with their answers: about what is known, and about what does not exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from experts.starter.geography import unknown
from experts.starter.geography.facts import Country, facts
from experts.starter.geography.index import countries_by_name, statements
from experts.starter.geography.phrasing import SHORT, ask, for_evaluation, named, value_asked
from experts.starter.geography.statements import (
    DIRECT,
    REVERSE,
    Kind,
    Statement,
    borders,
    capitalised,
    no_country,
    no_owner,
)
from experts.starter.shapes import Item
from experts.starter.wording import disturb

MIX: dict[Kind | None, float] = {
    "capital": 0.10,
    "currency": 0.07,
    "codes": 0.07,
    "calling": 0.05,
    "domain": 0.04,
    "continent": 0.03,
    "neighbours": 0.07,
    "borders": 0.13,
    "capital-of": 0.07,
    "currency-of": 0.09,
    "code-of": 0.08,
    "calling-of": 0.06,
    "domain-of": 0.04,
    None: 0.20,
}
"""Shares of the kinds of questions in training; None: about what does not exist. A
fact needs to be seen about a hundred times, so kinds with more facts have larger shares."""


@dataclass(frozen=True)
class Question:
    """A question with its answer. `text` is the question before typing accidents: its hash says
    whether it is kept for evaluation."""

    text: str
    item: Item
    statement: Statement

    @property
    def kept(self) -> bool:
        """Whether it is kept for evaluation."""
        return for_evaluation(self.text)


def sample(random: Random) -> Question:
    """A question that training may contain."""
    while True:
        kind = random.choices(list(MIX), weights=list(MIX.values()))[0]
        question = sample_kind(kind, random) if kind else sample_unknown(random)
        if not question.kept:
            return question


def sample_kind(kind: Kind, random: Random) -> Question:
    """Any question of a kind, about what is known."""
    if kind == "borders":
        country = random.choice(facts().countries)
        other = other_country(country, random)
        asked = (named(country, random), named(other, random))
        return question_of(borders(country, other), asked, random)
    statement = random.choice(statements(kind))
    if kind in DIRECT:
        assert statement.country is not None
        return question_of(statement, (named(statement.country, random),), random)
    return question_of(statement, (value_asked(statement, random),), random)


def question_of(statement: Statement, asked: tuple[str, ...], random: Random) -> Question:
    """A question that names `asked`, and `statement` as its answer."""
    text = ask(statement.kind, *asked, random=random)
    short, begun = "", list[str]()
    if statement.kind in SHORT:
        short = SHORT[statement.kind].format(*asked)
    if statement.brief:
        before = statement.sentence.removesuffix(statement.brief).rstrip()
        begun = [before, f"{capitalised(short)} is"]
    question, answer = disturb(text, random), statement.sentence
    item = Item(question, answer, short, tuple(begun), statement.brief)
    return Question(text, item, statement)


def other_country(country: Country, random: Random) -> Country:
    """A neighbour in half of the cases, where there is one; else one of its continent, or any."""
    known, chance = countries_by_name(), random.random()
    near = [known[name] for name in country.neighbours or () if name in known]
    if near and chance < 0.5:
        return random.choice(near)
    continent = [c for c in facts().countries if c.continent == country.continent]
    others = continent if chance < 0.85 else facts().countries
    return random.choice([other for other in others if other != country])


def sample_unknown(random: Random) -> Question:
    """A question about a country, a code, a currency or a capital that does not exist."""
    if random.random() < 0.5:
        return question_of(*unknown_country(random.choice((*DIRECT, "borders")), random), random)
    kind = random.choice(REVERSE)
    value = _UNKNOWN[kind](random)
    return question_of(no_owner(kind, value), (value,), random)


def unknown_country(kind: Kind, random: Random) -> tuple[Statement, tuple[str, ...]]:
    """A direct question about what is not a country: the answer, and what the question names."""
    name, territory = unknown.country_name(random), random.random() < 0.25
    if territory:
        name = random.choice(facts().territories).name
    asked: tuple[str, ...] = (name,)
    if kind == "borders":
        asked = (name, named(random.choice(facts().countries), random))
    return no_country(kind, name, territory), asked


_UNKNOWN: dict[Kind, Callable[[Random], str]] = {
    "capital-of": lambda random: random.choice(facts().cities),
    "currency-of": unknown.currency,
    "code-of": unknown.code,
    "calling-of": lambda random: random.choice(facts().unassigned),
    "domain-of": unknown.domain,
}
