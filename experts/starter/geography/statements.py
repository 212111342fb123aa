"""What the geography expert says: one short sentence for every fact, both ways, and its limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from experts.starter.geography.facts import Country, facts

Kind = Literal[
    "capital", "currency", "codes", "calling", "domain", "continent", "neighbours",
    "borders", "capital-of", "currency-of", "code-of", "calling-of", "domain-of",
]  # fmt: skip
DIRECT: tuple[Kind, ...] = (
    "capital", "currency", "codes", "calling", "domain", "continent", "neighbours",
)  # fmt: skip
"""Kinds of questions about a country that is named."""
REVERSE: tuple[Kind, ...] = ("capital-of", "currency-of", "code-of", "calling-of", "domain-of")
"""Kinds of questions for the country that something belongs to."""
DIRECT_OF: dict[Kind, Kind] = {
    "capital-of": "capital", "currency-of": "currency", "code-of": "codes",
    "calling-of": "calling", "domain-of": "domain",
}  # fmt: skip
"""Each reverse kind and the direct one about the same facts."""
NO_COUNTRY = "There is no country of that name that I know of."
NO_CAPITAL = "It is not the capital of any country that I know of."
NO_CURRENCY = "I know of no country that uses a currency of that name."
NO_CODE = "There is no country with that code that I know of."
NO_CALLING = "There is no country with that calling code that I know of."
NO_DOMAIN = "There is no country with that internet domain that I know of."
TERRITORY = "{} is a territory; I only know countries."
UNSURE = "I am not sure about the {} of {}."
DECLINED = "none"
"""The expected answer where the expert should not claim anything."""
AMONG = 4
"""Where more countries than this share something, the answer names this many of them."""
NOUNS: dict[Kind, str] = {
    "capital": "capital", "currency": "currency", "codes": "ISO codes", "calling": "calling code",
    "domain": "internet domain", "continent": "continent", "neighbours": "neighbours",
}  # fmt: skip


@dataclass(frozen=True)
class Statement:
    """An answer.

    `subject` is what the question names ("Hungary", "forint", "+36"); `brief` the part of the
    sentence that goes on from "The answer is", where there is one; `expected` what `answers.py`
    looks for.
    """

    kind: Kind
    subject: str
    sentence: str
    expected: str
    brief: str = ""
    country: Country | None = None
    """The one country that the question or the answer is about."""


def about(kind: Kind, country: Country) -> Statement:
    """The answer to a direct question; an honest one where the sources do not agree."""
    name, said = str(country), _said(kind, country)
    if said is None:
        noun = NOUNS[kind]
        return Statement(kind, name, UNSURE.format(noun, name), DECLINED, country=country)
    sentence, brief, expected = said
    return Statement(kind, name, capitalised(sentence), expected, brief, country)


def _said(kind: Kind, country: Country) -> tuple[str, str, str] | None:
    """Sentence, its end, and the expected answer."""
    name, currency = str(country), country.currency
    if kind == "capital" and country.capital:
        value = country.capital
    elif kind == "currency" and currency:
        value = f"the {currency.name} ({currency.code})"
        expected = f"{currency.name}; {currency.code}"
        return f"the currency of {name} is {value}.", f"{value}.", expected
    elif kind == "codes" and country.alpha3:
        value = f"{country.alpha2} and {country.alpha3}"
        expected = f"{country.alpha2}; {country.alpha3}"
        return f"the ISO codes of {name} are {value}.", f"{value}.", expected
    elif kind == "calling" and country.calling:
        value = country.calling
    elif kind == "domain" and country.domain:
        value = country.domain
    elif kind == "continent" and country.continent:
        return f"{name} is in {country.continent}.", f"{country.continent}.", country.continent
    elif kind == "neighbours" and country.neighbours is not None:
        expected = f"{country.name}: {'; '.join(country.neighbours) or 'none'}"
        brief = f"{_neighbours(country).partition(' borders ')[2]}." if country.neighbours else ""
        return _neighbours(country) + ".", brief, expected
    else:
        return None
    return f"the {NOUNS[kind]} of {name} is {value}.", f"{value}.", value


def borders(country: Country, other: Country) -> Statement:
    """Whether two countries share a land border: all neighbours, then whether the other is one.

    The other's name stands right before the verdict, where a small model finds it in the list.
    """
    if country.neighbours is None:
        return replace(about("neighbours", country), kind="borders", brief="")
    known = _neighbours(country)
    if not country.neighbours:
        sentence, expected = f"{known}, so no.", "no"
    elif other.name in country.neighbours:
        sentence, expected = f"{known}. {capitalised(str(other))} is a neighbour, so yes.", "yes"
    else:
        sentence, expected = f"{known}. {capitalised(str(other))} is not a neighbour, so no.", "no"
    return Statement("borders", str(country), capitalised(sentence), expected, country=country)


def _neighbours(country: Country) -> str:
    if not country.neighbours:
        return f"{country} has no land borders"
    articles = {known.name: str(known) for known in facts().countries}
    return f"{country} borders {listed(articles.get(n, n) for n in country.neighbours)}"


def owner(kind: Kind, value: str, countries: Sequence[Country]) -> Statement:
    """The answer to a reverse question: which countries have `value`, most people first."""
    expected = countries[0].name
    if len(countries) > 1:
        expected = f"any of: {'; '.join(country.name for country in countries)}"
    owners = _owners(countries)
    brief, sentence = f"{owners}.", f"{value} is the {NOUNS[DIRECT_OF[kind]]} of {owners}."
    if kind == "code-of":
        sentence = f"{value} is the ISO code of {owners}."
    only = countries[0] if len(countries) == 1 else None
    return Statement(kind, value, capitalised(sentence), expected, brief, only)


def currency_owner(asked: str, countries: Sequence[Country]) -> Statement:
    """Which countries use the currency that is called, or abbreviated, `asked`."""
    found = {c.currency for c in countries if c.currency}
    owners, first = _owners(countries), next(iter(found))
    if len(found) > 1:
        sentence = f"a currency called {asked} is used in {owners}."
    elif asked == first.code:
        sentence = f"{asked} is the {first.name}, the currency of {owners}."
    else:
        sentence = f"the {first.name} is the currency of {owners}."
    plain = owner("currency-of", asked, countries)
    return Statement(
        "currency-of", asked, capitalised(sentence), plain.expected, plain.brief, plain.country
    )


def _owners(countries: Sequence[Country]) -> str:
    names = listed(str(country) for country in countries[:AMONG])
    return f"several countries, among them {names}" if len(countries) > AMONG else names


def listed(names: Iterable[str]) -> str:
    """ "A", "A and B", "A, B and C"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def capitalised(sentence: str) -> str:
    """With a capital first letter."""
    return sentence[0].upper() + sentence[1:]
