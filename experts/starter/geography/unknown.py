"""Names and codes that no country has: made up, near misses, cities and regions."""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations
from random import Random
from string import ascii_uppercase

from experts.starter.geography.facts import facts, fold

FICTIONAL = (
    "Wakanda", "Narnia", "Genovia", "Atlantis", "Westeros", "Mordor", "Zubrowka", "Latveria",
    "Sokovia", "Elbonia", "Freedonia", "Utopia", "Ruritania", "Lilliput", "Arendelle", "Gondor",
    "Yugoslavia", "the Soviet Union", "Czechoslovakia", "East Germany", "Prussia", "Babylonia",
)  # fmt: skip
"""From stories and from history."""
ONSETS = (
    "Ar", "Bel", "Bor", "Cal", "Dra", "El", "Far", "Gal", "Hal", "Il", "Jor", "Kal", "Kor", "Lam",
    "Lor", "Mar", "Mor", "Nal", "Or", "Pal", "Quen", "Ros", "Sal", "Tar", "Ul", "Val", "Vor", "Wes",
    "Xan", "Yor", "Zan", "Zem", "Bru", "Che", "Gri", "Klo", "Plu", "Sto", "Tru", "Fle",
)  # fmt: skip
MIDDLES = ("", "a", "o", "ba", "do", "ga", "li", "ma", "no", "ra", "si", "ta", "ve", "zo", "ndo")
ENDINGS = (
    "ia", "land", "stan", "nia", "ria", "dor", "mark", "way", "bia", "gary", "vakia", "tina", "que",
    "gal", "rus", "den", "lia", "nesia", "guay", "wana", "bar", "pore", "laysia", "nda", "mbia",
)  # fmt: skip
BEFORE = ("New ", "North ", "South ", "East ", "West ", "Upper ", "Saint ", "the Republic of ")
MONEY_ENDINGS = ("t", "n", "r", "on", "in", "ar", "el", "do", "ka", "int", "ule", "ing", "ente")
FORMER_MONEY = ("drachma", "peseta", "thaler", "ducat", "talent", "galleon", "kredit", "groschen")
"""No longer, or never, the currency of a country."""
RESERVED = frozenset((
    "AC", "AN", "AP", "BU", "CP", "CS", "DD", "DG", "EA", "EU", "EZ", "FX", "IC", "NT", "SU",
    "TA", "TP", "UK", "UN", "XK", "YU", "ZR",
))  # fmt: skip
"""Codes that ISO 3166 keeps for areas that are no country of today."""


def country_name(random: Random) -> str:
    """A name that no country or territory has, nor one that differs from such a name by a typo."""
    chance = random.random()
    if chance < 0.25:
        return random.choice(facts().places)
    if chance < 0.32:
        return random.choice(FICTIONAL)
    while True:
        name = _invented(random)
        if not _variants(name) & _taken():
            return name


def _invented(random: Random) -> str:
    if random.random() < 0.5:
        first, second = (random.choice(facts().countries).name for _ in range(2))
        name = first[: random.randint(2, 5)] + second[-random.randint(3, 6) :].lstrip()
        name = name.replace("-", "").replace("'", "").rstrip()
        name = " ".join(word[0].upper() + word[1:].lower() for word in name.split())
    else:
        name = random.choice(ONSETS) + random.choice(MIDDLES) + random.choice(ENDINGS)
    return random.choice(BEFORE) + name if random.random() < 0.12 else name


@cache
def _taken() -> frozenset[str]:
    """Every known name with up to two letters left out: what a typo makes of it."""
    known = facts()
    names = [
        name for c in known.countries for name in (c.name, c.official, *c.aliases) if len(name) > 2
    ]
    names += [territory.name for territory in known.territories]
    return frozenset().union(*map(_variants, names))


@cache
def _taken_money() -> frozenset[str]:
    known = (country.currency for country in facts().countries)
    words = [word for money in known if money for word in (money.word, money.code)]
    return frozenset().union(*map(_variants, words))


def _variants(name: str) -> frozenset[str]:
    """The name with at most two letters left out, or one where it is short."""
    letters = re.sub(r"^(the|republic of) ", "", fold(name)).replace(" ", "")
    kept = range(max(1, len(letters) - (2 if len(letters) > 6 else 1)), len(letters) + 1)
    return frozenset("".join(part) for size in kept for part in combinations(letters, size))


def currency(random: Random) -> str:
    """A word for money that no country uses, nor one that differs from such a word by a typo."""
    if random.random() < 0.2:
        return random.choice(FORMER_MONEY)
    while True:
        start = (random.choice(ONSETS) + random.choice(MIDDLES)).lower()
        name = start + random.choice(MONEY_ENDINGS)
        if not _variants(name) & _taken_money():
            return name


def code(random: Random) -> str:
    """Two or three capital letters that no country and no territory has."""
    while True:
        letters = "".join(random.choices(ascii_uppercase, k=random.choice((2, 2, 3))))
        if letters not in _taken_codes():
            return letters


def domain(random: Random) -> str:
    """A two-letter domain that no country and no territory has."""
    while True:
        letters = "".join(random.choices(ascii_uppercase, k=2))
        if letters not in _taken_codes():
            return f".{letters.lower()}"


@cache
def _taken_codes() -> frozenset[str]:
    known = facts()
    codes = {code for c in known.countries for code in (c.alpha2, c.alpha3, c.domain[1:].upper())}
    codes |= {code.strip(".").upper() for t in known.territories for code in t.codes}
    money = {c.currency.code for c in known.countries if c.currency}
    return frozenset(codes | money | RESERVED)
