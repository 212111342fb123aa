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
NO_COUNTRY = "{} is no country that I know of."
UNKNOWN = "the {} of {} {} unknown to me: {}."
NO_SUCH = "I know no country of that name"
A_TERRITORY = "it is a territory, and I only know countries"
TERRITORY = "{} is a territory; I only know countries."
UNSURE = "the {} of {} {} something that I am not sure about."
NO_OWNER = "no country that I know of"
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
        sentence = UNSURE.format(NOUNS[kind], name, _verb(kind))
        return Statement(kind, name, capitalised(sentence), DECLINED, country=country)
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


def no_country(kind: Kind, name: str, territory: bool) -> Statement:
    """The answer to a direct question about what is no country. Like all that is declined it
    begins as an answer does, so that it is decided where the name has been repeated."""
    if kind in ("continent", "neighbours", "borders"):
        sentence = (TERRITORY if territory else NO_COUNTRY).format(name)
    else:
        reason = A_TERRITORY if territory else NO_SUCH
        sentence = UNKNOWN.format(NOUNS[kind], name, _verb(kind), reason)
    return Statement(kind, name, capitalised(sentence), DECLINED)


def no_owner(kind: Kind, value: str) -> Statement:
    """The answer to a reverse question about what no country has."""
    sentence = _owned_by(kind, value, NO_OWNER)
    return Statement(kind, value, capitalised(sentence), DECLINED)


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
    only = countries[0] if len(countries) == 1 else None
    sentence = capitalised(_owned_by(kind, value, owners))
    return Statement(kind, value, sentence, expected, f"{owners}.", only)


def _owned_by(kind: Kind, value: str, owners: str) -> str:
    noun = "ISO code" if kind == "code-of" else NOUNS[DIRECT_OF[kind]]
    article = "the " if kind == "currency-of" and not value.isupper() else ""
    return f"{article}{value} is the {noun} of {owners}."


def currency_owner(asked: str, countries: Sequence[Country]) -> Statement:
    """Which countries use the currency that is called, or abbreviated, `asked`."""
    plain = owner("currency-of", asked, countries)
    currency = countries[0].currency
    if currency is None or asked != currency.code:
        return plain
    sentence = f"{asked} is the {currency.name}, the currency of {plain.brief}"
    return replace(plain, sentence=sentence)


def _owners(countries: Sequence[Country]) -> str:
    names = listed(str(country) for country in countries[:AMONG])
    return f"several countries, among them {names}" if len(countries) > AMONG else names


def _verb(kind: Kind) -> str:
    return "are" if kind in ("codes", "neighbours") else "is"


def listed(names: Iterable[str]) -> str:
    """ "A", "A and B", "A, B and C"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def capitalised(sentence: str) -> str:
    """With a capital first letter."""
    return sentence[0].upper() + sentence[1:]
