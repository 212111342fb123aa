"""What the expert knows: elements, salts and molecules, read from `facts.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from experts.starter.chemistry.ions import ANIONS, CATIONS, Ion, salt_formula

FACTS_FILE = Path(__file__).parent / "facts.json"


@dataclass(frozen=True)
class Element:
    """A chemical element. `mass` in u with three decimals; `group` is None for lanthanides and
    actinides, `electronegativity` (Pauling) where there is none; `configuration` "[Ar] 3d6 4s2"."""

    number: int
    symbol: str
    name: str
    mass: str
    group: int | None
    period: int
    block: str
    electronegativity: str | None
    configuration: str
    stable: bool


@dataclass(frozen=True)
class Compound:
    """A compound. `ions` and `water` say what a salt is made of; a molecule has no ions."""

    name: str
    formula: str
    ions: tuple[Ion, Ion] | None = None
    water: int = 0
    everyday: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Everything, by symbol or name."""

    elements: Mapping[str, Element]
    compounds: Mapping[str, Compound]


@cache
def facts() -> Facts:
    """The facts that ship with Trivium."""
    tables = json.loads(FACTS_FILE.read_text(encoding="utf-8"))
    others: dict[str, list[str]] = {}
    for everyday, name in tables["everyday"].items():
        others.setdefault(name, []).append(everyday)
    elements = {fact["symbol"]: Element(**fact) for fact in tables["elements"]}
    compounds = [_salt(fact, others) for fact in tables["salts"]]
    compounds += [
        Compound(**fact, everyday=tuple(others.get(fact["name"], ())))
        for fact in tables["molecules"]
    ]
    return Facts(elements, {compound.name: compound for compound in compounds})


def _salt(fact: dict[str, Any], others: dict[str, list[str]]) -> Compound:
    ions, water = (CATIONS[fact["cation"]], ANIONS[fact["anion"]]), fact["water"]
    everyday = tuple(others.get(fact["name"], ()))
    return Compound(fact["name"], salt_formula(*ions, water), ions, water, everyday)
