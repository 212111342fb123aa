"""All statements that the geography expert is taught, by kind."""

from __future__ import annotations

from functools import cache

from experts.starter.geography.facts import Country, facts
from experts.starter.geography.statements import (
    DIRECT,
    REVERSE,
    Kind,
    Statement,
    about,
    currency_owner,
    owner,
)


@cache
def statements(kind: Kind) -> tuple[Statement, ...]:
    """Every statement of a kind, "borders" excepted: there is one for each pair of countries."""
    if kind in DIRECT:
        return tuple(about(kind, country) for country in facts().countries)
    assert kind in REVERSE
    if kind == "currency-of":
        return tuple(currency_owner(asked, found) for asked, found in _by_currency().items())
    return tuple(owner(kind, value, found) for value, found in _owned(kind).items())


@cache
def countries_by_name() -> dict[str, Country]:
    """The countries by their canonical names."""
    return {country.name: country for country in facts().countries}


def _owned(kind: Kind) -> dict[str, tuple[Country, ...]]:
    known = facts()
    if kind == "capital-of":
        return known.by(lambda country: country.capital)
    if kind == "code-of":
        return known.by(lambda c: c.alpha2) | known.by(lambda c: c.alpha3)
    if kind == "domain-of":
        return known.by(lambda country: country.domain)
    numbers = known.by(lambda country: country.calling)
    america = known.by(lambda c: "+1" if c.calling.startswith("+1") else "")
    return numbers | america


def _by_currency() -> dict[str, tuple[Country, ...]]:
    """By full name ("Hungarian forint"), word ("forint") and ISO code ("HUF")."""
    known = facts()
    names = known.by(lambda c: c.currency.name if c.currency else "")
    words = known.by(lambda c: c.currency.word if c.currency else "")
    return words | names | known.by(lambda c: c.currency.code if c.currency else "")
