"""What the geography expert knows, read from `facts.json`, and looking it up both ways.

`sources.py` writes the file. What its sources do not agree on is empty there.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FACTS_FILE = Path(__file__).parent / "facts.json"


@dataclass(frozen=True)
class Currency:
    """ISO 4217 code and English name: "HUF", "Hungarian forint"."""

    code: str
    name: str

    @property
    def word(self) -> str:
        """What people call it: "forint"."""
        return self.name.split()[-1]


@dataclass(frozen=True)
class Country:
    """One country. An empty text, or None, is a fact that the sources do not agree on."""

    alpha2: str
    alpha3: str
    name: str
    article: str
    """ "the " or ""."""
    aliases: tuple[str, ...]
    """Other names that people use, some with their article."""
    official: str
    """The long name with its article, "the Republic of Austria", or ""."""
    capital: str
    continent: str
    currency: Currency | None
    calling: str
    """As "+36" or "+1 876"."""
    domain: str
    """As ".hu"."""
    neighbours: tuple[str, ...] | None
    """Names of all places with a common land border, territories too; () where there is none."""
    population: int

    def __str__(self) -> str:
        return self.article + self.name


@dataclass(frozen=True)
class Territory:
    """A dependent territory, about which the expert has no facts: its name, codes and domain."""

    name: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """All of `facts.json`."""

    countries: tuple[Country, ...]
    territories: tuple[Territory, ...]
    unassigned: tuple[str, ...]
    """Calling codes that nobody has."""
    places: tuple[str, ...]
    """Names of cities, states and continents that are not countries' names."""
    cities: tuple[str, ...]
    """Names of large cities that are not capitals."""

    def by(self, key: Callable[[Country], str]) -> dict[str, tuple[Country, ...]]:
        """The countries with each value of `key`, most people first; not those without one."""
        found: dict[str, tuple[Country, ...]] = {}
        for country in sorted(self.countries, key=lambda c: -c.population):
            if value := key(country):
                found[value] = (*found.get(value, ()), country)
        return found


@cache
def facts() -> Facts:
    """The facts that ship with the expert."""
    content = json.loads(FACTS_FILE.read_text(encoding="utf-8"))
    countries = tuple(_country(**entry) for entry in content["countries"])
    territories = tuple(Territory(t["name"], tuple(t["codes"])) for t in content["territories"])
    lists = (tuple(content[key]) for key in ("unassigned", "places", "cities"))
    return Facts(countries, territories, *lists)


def _country(
    *,
    aliases: list[str],
    currency: dict[str, str] | None,
    neighbours: list[str] | None,
    **rest: object,
) -> Country:
    return Country(
        aliases=tuple(aliases),
        currency=None if currency is None else Currency(**currency),
        neighbours=None if neighbours is None else tuple(neighbours),
        **rest,  # type: ignore[arg-type]
    )


def fold(text: str) -> str:
    """Lower case, without accents, typographic apostrophes and hyphens: for comparing names."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return plain.replace("-", " ").replace("'", "").casefold().strip()
