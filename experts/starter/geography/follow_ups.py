"""Questions that make sense only after the one before: "and of Peru?", "and its currency?"."""

from __future__ import annotations

from random import Random

from experts.starter.geography.facts import Country, facts
from experts.starter.geography.index import statements
from experts.starter.geography.phrasing import named, value_asked
from experts.starter.geography.sampling import (
    MIX,
    Question,
    other_country,
    sample_kind,
    unknown_country,
)
from experts.starter.geography.statements import DIRECT, DIRECT_OF, Kind, Statement, about, borders
from experts.starter.shapes import Item
from experts.starter.wording import disturb

SAME = (
    "and of {}?", "and {}?", "what about {}?", "and for {}?", "{}?", "how about {}?", "And {}?",
    "same for {}", "now {}", "what about {}", "and {} please", "ok, and {}?", "and that of {}?",
    "And of {}?", "and {}", "What about {}?", "and in the case of {}?", "then {}?",
)  # fmt: skip
"""The same question about another country."""
SAME_VALUE = (
    "and {}?", "what about {}?", "{}?", "how about {}", "And {}?", "and {}, whose is that?",
    "now {}", "and which one for {}?", "what about {}",
)  # fmt: skip
"""The same reverse question about another capital, currency, code or domain."""
ITS = (
    "and its {}?", "what is its {}?", "and the {}?", "And the {} there?", "what about its {}?",
    "its {}?", "and what's the {}?", "now its {}", "What's the {} of that country?", "And its {}?",
    "and do you know its {}?", "tell me its {} too", "And what is the {}?",
)  # fmt: skip
"""Another question about the same country."""
BORDER = (
    "does it border {}?", "and does it border {}?", "does it share a border with {}?",
    "is it next to {}?", "And does it have a border with {}?", "does that country border {}",
)  # fmt: skip
BORDER_TOO = (
    "and {}?", "what about {}?", "and does it border {}?", "and with {}?", "And {}?",
    "does it border {} too?", "how about {}", "also {}?",
)  # fmt: skip
NOUNS: dict[Kind, tuple[str, ...]] = {
    "capital": ("capital", "capital city", "capital"),
    "currency": ("currency", "money", "currency code"),
    "codes": ("ISO code", "ISO codes", "two-letter code", "three-letter code", "alpha-3 code"),
    "calling": ("calling code", "dialling code", "phone code", "phone prefix"),
    "domain": ("internet domain", "top-level domain", "TLD"),
    "continent": ("continent",),
    "neighbours": ("neighbours", "neighbors", "neighbouring countries"),
}


def sample(random: Random) -> tuple[Question, Question]:
    """A question, and one that goes on from it, that training may contain."""
    while True:
        earlier, later = sample_any(random)
        if not earlier.kept and not later.kept:
            return earlier, later


def sample_any(random: Random) -> tuple[Question, Question]:
    """A question, and any that goes on from it."""
    weights = {kind: share for kind, share in MIX.items() if kind}
    earlier = sample_kind(random.choices(list(weights), list(weights.values()))[0], random)
    return earlier, _later(earlier.statement, random)


def _later(earlier: Statement, random: Random) -> Question:
    country = earlier.country
    if country and random.random() < 0.5:
        return _about_same(earlier.kind, country, random)
    if earlier.kind == "borders":
        assert country is not None
        return _border(country, BORDER_TOO, random)
    if earlier.kind in DIRECT:
        if random.random() < 0.08:
            statement, names = unknown_country(earlier.kind, random)
            return _question(random.choice(SAME), names[0], statement, random)
        other = random.choice(facts().countries)
        said = about(earlier.kind, other)
        return _question(random.choice(SAME), named(other, random), said, random)
    statement = random.choice(statements(earlier.kind))
    asked = value_asked(statement, random)
    form = random.choice(SAME_VALUE)
    if earlier.kind == "currency-of" and not asked.isupper():
        form = form.replace("{}", "the {}")
    return _question(form, asked, statement, random)


def _about_same(kind: Kind, country: Country, random: Random) -> Question:
    """Another question about the country of the earlier one."""
    if kind != "borders" and random.random() < 0.2:
        return _border(country, BORDER, random)
    known = DIRECT_OF.get(kind, kind)
    other = random.choice([other for other in DIRECT if other != known])
    return _question(random.choice(ITS), random.choice(NOUNS[other]), about(other, country), random)


def _border(country: Country, forms: tuple[str, ...], random: Random) -> Question:
    other = other_country(country, random)
    said = borders(country, other)
    return _question(random.choice(forms), named(other, random), said, random)


def _question(form: str, asked: str, statement: Statement, random: Random) -> Question:
    """`text`, which decides what is kept for evaluation, holds what the question leaves out."""
    written = form.format(asked)
    item = Item(disturb(written, random), statement.sentence)
    return Question(f"{statement.kind} {statement.subject}: {written}", item, statement)
