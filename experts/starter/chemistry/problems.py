"""Chemistry problems with worked answers: what the expert is taught to write.

A fact is one sentence that repeats what was asked. What can be computed is: a salt's formula from
its ions, a molar mass from a table of mass × count and a sum by columns, an oxidation state from
those that are fixed. Masses of atoms have three decimals.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

from experts.starter.chemistry.facts import Compound, Element, facts
from experts.starter.chemistry.formulas import counting, counts
from experts.starter.chemistry.ions import Ion, numbers

Kind = Literal[
    "symbol", "element", "number", "by number", "mass", "group", "period", "block",
    "place", "electronegativity", "configuration", "by configuration", "protons", "electrons",
    "formula", "name", "ion", "charge", "molar mass", "oxidation",
]  # fmt: skip
EVALUATION_SHARE = 10
"""One compound in this many is kept for evaluation, if it can be worked out from its ions."""
MAX_MASS, MAX_ELEMENTS = 1000, 5
"""Beyond these a molar mass is declined."""


@dataclass(frozen=True)
class Problem:
    """One problem. `x` and `y` are what the question names (an element, a compound), `working` the
    whole answer, ending in a sentence with `answer`; `compound` is what it is about, if any."""

    kind: Kind
    x: str
    answer: str
    working: str
    y: str = ""
    compound: Compound | None = None

    def for_evaluation(self) -> bool:
        """Whether the problem is about a compound that training does not contain."""
        return self.compound is not None and kept(self.compound)


def kept(compound: Compound) -> bool:
    """Whether a compound is kept for evaluation: a salt without an everyday name, by a hash."""
    if compound.ions is None or compound.everyday:
        return False
    return zlib.crc32(compound.formula.encode()) % EVALUATION_SHARE == 0


_OF: dict[Kind, str] = {
    "symbol": "The symbol of {}", "number": "The atomic number of {}",
    "protons": "An atom of {}", "electrons": "A neutral atom of {}",
    "mass": "The atomic mass of {}", "group": "{}", "period": "{}", "block": "{}",
    "electronegativity": "The electronegativity of {}",
    "configuration": "The electron configuration of {}",
}  # fmt: skip
"""How the sentence about a property of one element begins."""


def property_of(kind: Kind, element: Element, asked: str) -> Problem:
    """A property of an element, asked for by name or by symbol. Raises KeyError for `kind`s that
    are not properties of one element."""
    if kind == "element":
        sentence = f"{element.symbol} is the symbol of {element.name}."
        return Problem(kind, asked, element.name, sentence)
    group = f"in group {element.group}" if element.group else "in no numbered group"
    electronegativity = element.electronegativity
    no_value = "has no value on the Pauling scale"
    answer, end = {
        "symbol": (element.symbol, f"is {element.symbol}"),
        "number": (str(element.number), f"is {element.number}"),
        "protons": (str(element.number), f"has {element.number} protons"),
        "electrons": (str(element.number), f"has {element.number} electrons"),
        "mass": (element.mass, f"is {element.mass} u"),
        "group": (str(element.group or "no numbered group"), f"is {group}"),
        "period": (str(element.period), f"is in period {element.period}"),
        "block": (f"{element.block}-block", f"is in the {element.block}-block"),
        "electronegativity": (
            electronegativity or "no value",
            f"is {electronegativity}" if electronegativity else no_value,
        ),
        "configuration": (element.configuration, f"is {element.configuration}"),
    }[kind]
    name = f"{asked} ({element.name})" if asked == element.symbol else element.name
    return Problem(kind, asked, answer, f"{_begun(kind, name)} {end}.")


def unknown_property(kind: Kind, asked: str) -> str:
    """The answer about a property of what is no element. Like all that is declined it begins as an
    answer does, so that it is decided where the name or symbol has been repeated."""
    if kind == "element":
        return f"{asked} is the symbol of no element that I know of."
    if len(asked) <= 2:
        return f"{_begun(kind, f'{asked} (no element)')} is unknown to me."
    return f"{_begun(kind, asked)} is unknown to me: I know no element of that name."


def unknown_number(number: int) -> str:
    """The answer about an element of a number that none has."""
    return f"The element with the atomic number {number} does not exist."


def unknown_compound(asked: str) -> str:
    """The answer about a name that no compound has."""
    return f"{asked}: unknown\nI do not know that compound."


def unknown_formula(formula: str, symbol: str) -> str:
    """The answer about a formula that holds a symbol that no element has."""
    return f"{formula}: {symbol} is no element\nThat formula holds a symbol that no element has."


def _begun(kind: Kind, subject: str) -> str:
    start = _OF[kind].format(subject)
    return start[0].upper() + start[1:]


def element_by(kind: Kind, element: Element) -> Problem:
    """The element with a given number, configuration or place. Raises KeyError for another
    `kind`."""
    x, sentence = {
        "by number": (
            str(element.number),
            f"The element with the atomic number {element.number} is {element.name}.",
        ),
        "by configuration": (
            element.configuration,
            f"{element.configuration} is the configuration of {element.name}.",
        ),
        "place": (
            str(element.group),
            f"The element in group {element.group} and period {element.period} is {element.name}.",
        ),
    }[kind]
    return Problem(kind, x, element.name, sentence, str(element.period))


CORES = {"He": "1s2", "Ne": "1s2 2s2 2p6", "Ar": "1s2 2s2 2p6 3s2 3p6"}


def in_full(element: Element) -> Problem:
    """The element of a configuration that is written out: "1s2 2s2 2p6 3s1"."""
    core, _, rest = element.configuration.rpartition("] ")
    full = f"{CORES[core[1:]]} {rest}" if core else element.configuration
    sentence = f"{full} is the configuration of {element.name}."
    return Problem("by configuration", full, element.name, sentence, str(element.period))


def formula_of(compound: Compound, asked: str) -> Problem:
    """Name → formula."""
    sentence = f"The formula of {asked} is {compound.formula}."
    working = f"{identified(compound, asked)}\n{sentence}"
    return Problem("formula", asked, compound.formula, working, compound=compound)


def name_of(compound: Compound) -> Problem:
    """Formula → name. The charge of a metal that has several comes from the anions'."""
    formula = compound.formula
    sentence = f"{formula} is the formula of {compound.name}."
    lines = [f"{formula}: {_ions(compound)}", sentence] if compound.ions else [sentence]
    return Problem("name", formula, compound.name, "\n".join(lines), compound=compound)


def ion_formula(ion: Ion) -> Problem:
    """Ion → formula with charge."""
    return Problem("ion", ion.name, str(ion), f"The {ion.name} ion is {ion}.")


def ion_charge(ion: Ion) -> Problem:
    """Ion → charge."""
    size = abs(ion.charge)
    charge = f"{size}{'+' if ion.charge > 0 else '-'}"
    return Problem("charge", ion.name, charge, f"The {ion.name} ion is {ion}: charge {charge}.")


def molar_mass(compound: Compound, asked: str) -> Problem | None:
    """Formula or name → molar mass; None where there are too many elements or it is too heavy."""
    formula = compound.formula
    atoms = counts(formula)
    values = [thousandths(symbol) * number for symbol, number in atoms.items()]
    total = sum(values)
    if total >= 1000 * MAX_MASS or len(atoms) > MAX_ELEMENTS:
        return None
    counted = counting(formula)
    lines = [identified(compound, asked)]
    lines += [counted] if counted else []
    for (symbol, number), value in zip(atoms.items(), values, strict=True):
        factor = f" {facts().elements[symbol].mass}×{number}" if number > 1 else ""
        lines.append(f"{symbol}{factor}={_padded(value)}")
    lines += _sums(values)
    answer = f"{total // 1000}.{total % 1000:03d}"
    lines.append(f"The molar mass of {formula} is {answer} g/mol.")
    return Problem("molar mass", asked, answer, "\n".join(lines), compound=compound)


def oxidation_state(compound: Compound, symbol: str, asked: str) -> Problem | None:
    """The oxidation state of an element in a compound; None where the rules do not say it."""
    if compound.ions:
        steps = _ionic_state(compound, symbol)
    elif steps := _state(compound.formula, symbol, 0):
        steps = (steps[0], f"{symbol} in {steps[1]}")
    if steps is None:
        return None
    state, line = steps
    answer = f"{state:+d}" if state else "0"
    formula, name = compound.formula, facts().elements[symbol].name
    lines = [] if asked == formula else [identified(compound, asked)]
    lines += [line, f"The oxidation state of {name} in {formula} is {answer}."]
    return Problem("oxidation", name, answer, "\n".join(lines), asked, compound)


def state_in_ion(ion: Ion, symbol: str) -> Problem | None:
    """The same in an ion: "S in SO4 2-: O 4×2=8, 8-2=6"."""
    if (steps := _state(ion.formula, symbol, ion.charge)) is None:
        return None
    state, line = steps
    answer, name = f"{state:+d}" if state else "0", facts().elements[symbol].name
    working = f"{symbol} in {line}\nThe oxidation state of {name} in {ion} is {answer}."
    return Problem("oxidation", name, answer, working, str(ion))


def no_whole_state(metal: Element, formula: str, many: int, oxygen: int) -> str:
    """The answer where the metal's atoms cannot all have the same state."""
    line = (
        f"{metal.symbol} in {formula}: O {oxygen}×2={2 * oxygen}, {2 * oxygen}/{many} is not whole"
    )
    return f"{line}\nThe atoms of {metal.name} in {formula} have different oxidation states."


def identified(compound: Compound, asked: str) -> str:
    """What was asked, and the formula: "sodium sulfate: Na+ and SO4 2-, so Na2SO4"."""
    if asked == compound.formula:
        return asked
    if compound.ions is None:
        return f"{asked}: {compound.formula}"
    cation, anion = compound.ions
    water = f" and {compound.water} H2O" if compound.water else ""
    return f"{asked}: {cation} and {anion}{water}, so {compound.formula}"


def thousandths(symbol: str) -> int:
    """An element's atomic mass in thousandths of u."""
    return int(facts().elements[symbol].mass.replace(".", ""))


def _ions(compound: Compound) -> str:
    assert compound.ions is not None
    cation, anion = compound.ions
    water = f" and {compound.water} H2O" if compound.water else ""
    if "(" not in cation.name:
        return f"{cation} and {anion}{water}"
    return f"{_balance(cation, anion)}, {cation}{water}"


def _balance(cation: Ion, anion: Ion) -> str:
    """The charge of a cation from the anions': "SO4 2-, 3×2=6, 6/2=3"."""
    few, many = numbers(cation, anion)
    total = -anion.charge * many
    return f"{anion}, {many}×{-anion.charge}={total}, {total}/{few}={cation.charge}"


def _ionic_state(compound: Compound, symbol: str) -> tuple[int, str] | None:
    """In a salt: a simple ion's charge, or worked out inside an ion of several atoms."""
    assert compound.ions is not None
    cation, anion = compound.ions
    holders = [ion for ion in compound.ions if symbol in counts(ion.formula)]
    if len(holders) != 1 or (compound.water and symbol in "HO"):
        return None
    asked = f"{symbol} in {compound.formula}"
    if holders[0] is cation and not cation.polyatomic:
        return cation.charge, f"{asked}, beside {_balance(cation, anion)}"
    if not anion.polyatomic and holders[0] is anion:
        return anion.charge, f"{asked}, in {anion}"
    inner = _state(holders[0].formula, symbol, holders[0].charge)
    return inner and (inner[0], f"{asked}, in {inner[1]}")


UNRULY = (
    "H2O2", "O2", "CN", "SCN", "S2O3", "HCN", "CH3COO", "HCOO", "NCl3", "B2H6", "SiH4", "PH3",
    "AsH3", "O3",
)  # fmt: skip
"""Molecules and ions in which the rules of `_state` do not hold, or two atoms of an element
differ."""


def _state(formula: str, symbol: str, charge: int) -> tuple[int, str] | None:
    """An element's state in a molecule or ion: fixed, or what O, F and halogens take less what H
    gives. "SO4 2-: O 4×2=8, 8-2=6".
    """
    atoms, taken = counts(formula), _fixed(formula)
    label = str(Ion("", formula, charge)) if charge else formula
    unknown = [s for s in atoms if s not in taken and s != "H"]
    if symbol == "O" and formula in ("H2O2", "O2"):
        return -1, f"{label}: peroxide"
    if formula in UNRULY:
        return None
    if symbol in taken or symbol == "H":
        return (1 if symbol == "H" else -taken[symbol]), f"{label}: always"
    organic = {"C", "H"} <= set(atoms) and formula not in ("HCO3", "H2CO3")
    if organic or unknown != [symbol] or len(atoms) == 1:
        return None
    amounts = {s: n * taken[s] for s, n in atoms.items() if s in taken}
    hydrogen = atoms.get("H", 0)
    state = sum(amounts.values()) - hydrogen + charge
    steps = [f"{s} {atoms[s]}×{taken[s]}={amount}" for s, amount in amounts.items()]
    steps += [f"H {hydrogen}"] if hydrogen else []
    positive = [str(charge)] * (charge > 0 or not amounts) + [str(a) for a in amounts.values()]
    negative = [f"-{hydrogen}"] * (hydrogen > 0) + [str(charge)] * (charge < 0)
    if len(positive) + len(negative) > 1:
        steps.append(f"{'+'.join(positive)}{''.join(negative)}={state}")
    each, rest = divmod(state, atoms[symbol])
    if atoms[symbol] > 1:
        steps.append(f"{state}/{atoms[symbol]}={each}")
    return None if rest else (each, f"{label}: {', '.join(steps)}")


def _fixed(formula: str) -> dict[str, int]:
    """What the atoms of a molecule or ion with a fixed negative state take: F 1, else O 2, and
    halogens 1 where they are the outer ones."""
    atoms = counts(formula)
    if "F" in atoms:
        return {"F": 1}
    halogens = {"Cl": 1, "Br": 1} if {"Cl", "I"} <= set(atoms) else {"Cl": 1, "Br": 1, "I": 1}
    if "O" not in atoms:
        return halogens
    return {"O": 2, "Cl": 1} if formula in ("COCl2", "SOCl2", "SO2Cl2") else {"O": 2}


def _sums(values: list[int]) -> list[str]:
    """The sum of numbers below 10⁶, each added to the sum of those before, as the arithmetic expert
    adds: both turned round, thousandths first; the columns; what they give, still turned round."""
    total, lines = values[0], []
    for value in values[1:]:
        carry, columns = 0, []
        for place in range(6):
            first, second = (number // 10**place % 10 for number in (total, value))
            column = first + second + carry
            columns.append(f"{first}+{second}+{carry}={column:02d}")
            carry = column // 10
        lines += [f"{_padded(total)[::-1]} {_padded(value)[::-1]}", " ".join(columns)]
        total += value
        lines.append(f"> {_padded(total)[::-1]}")
    return lines


def _padded(value: int) -> str:
    """Thousandths with three digits before the point, so that equal places have equal numbers."""
    return f"{value // 1000:03d}.{value % 1000:03d}"
