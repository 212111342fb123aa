"""Chemical formulas: which atoms they hold, and how often."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOKEN = re.compile(r"([A-Z][a-z]?)(\d*)|(\()|\)(\d*)")


def terms(formula: str) -> dict[str, list[tuple[int, int]]]:
    """For each element, in the order of the formula, (count, factor of its bracket or water).

    "Al2(SO4)3" gives Al: (2, 1), S: (1, 3), O: (4, 3). Brackets do not stand in brackets.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for part in formula.split("·"):
        number, body = re.fullmatch(r"(\d*)(.*)", part).groups()  # type: ignore[union-attr]
        for symbol, count, factor in _atoms(body):
            found.setdefault(symbol, []).append((count, factor * int(number or 1)))
    return found


def counts(formula: str) -> Mapping[str, int]:
    """The number of atoms of each element."""
    return {symbol: sum(a * b for a, b in where) for symbol, where in terms(formula).items()}


def counting(formula: str) -> str:
    """How the atoms are counted: "Al 2, S 3, O 4×3=12"; empty where the formula says it itself."""
    found = terms(formula)
    if all(len(where) == 1 and where[0][1] == 1 for where in found.values()):
        return ""
    return ", ".join(f"{symbol} {_counted(where)}" for symbol, where in found.items())


def _counted(where: list[tuple[int, int]]) -> str:
    written = "+".join(f"{a}×{b}" if min(a, b) > 1 else str(a * b) for a, b in where)
    return written if written.isdigit() else f"{written}={sum(a * b for a, b in where)}"


def _atoms(body: str) -> list[tuple[str, int, int]]:
    """(symbol, count, factor) of each occurrence, without water."""
    atoms: list[tuple[str, int, int]] = []
    start: int | None = None
    for symbol, count, opening, factor in _TOKEN.findall(body):
        if symbol:
            atoms.append((symbol, int(count or 1), 1))
        elif opening:
            start = len(atoms)
        elif start is not None:
            atoms[start:] = [(s, c, int(factor or 1)) for s, c, _ in atoms[start:]]
            start = None
    return atoms
