"""Random problems within the chemistry expert's range, and questions just outside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from random import Random

from experts.starter.chemistry import problems
from experts.starter.chemistry.facts import Compound, Element, facts
from experts.starter.chemistry.formulas import counts
from experts.starter.chemistry.ions import ANIONS, CATIONS, Ion, salt_formula, salt_name
from experts.starter.chemistry.phrasing import OF_ELEMENT
from experts.starter.chemistry.problems import Kind, Problem, kept

MIX: dict[Kind, float] = {
    "symbol": 0.05, "element": 0.05, "number": 0.05, "by number": 0.05, "mass": 0.06,
    "group": 0.04, "period": 0.03, "block": 0.02, "place": 0.03, "electronegativity": 0.05,
    "configuration": 0.05, "by configuration": 0.04, "protons": 0.01, "electrons": 0.01,
    "formula": 0.13, "name": 0.09, "ion": 0.015, "charge": 0.015, "molar mass": 0.16,
    "oxidation": 0.08,
}  # fmt: skip
"""Shares of the kinds in training."""
TYPED = """
CH3OH C2H5OH CH3CH2OH CH3COOH HCOOH C6H5OH CH3COCH3 (CH3)2CO C6H5CH3 CH3NH2 (CH3)2NH CO(NH2)2
CH3CHO HCHO C6H5NH2 C6H5COOH CH3CN (CH3)2SO CH3CH2CH3 HOCH2CH2OH C3H5(OH)3 CH3OCH3 CHCl3 CH2Cl2
CCl2F2 C2H5Cl CH3COCl CH3CONH2 H2NCH2COOH CH3COOC2H5 C2H5OC2H5 (C2H5)2O (C2H5)3N CH3NO2 C6H5NO2
C6H5Cl CH3Br (COOH)2 HOOCCOOH CH3CH2COOH NH4OH Pb(C2H5)4 Ni(CO)4 Fe(CO)5 K4Fe(CN)6 K3Fe(CN)6
KAl(SO4)2 KAl(SO4)2·12H2O (NH4)2Fe(SO4)2·6H2O Ca5(PO4)3OH Ca10(PO4)6(OH)2 Fe3O4 Pb3O4 Mn3O4
CH3COONa NaCH3COO NaC2H3O2 HCOONa CH3COOK (CH3COO)2Ca C6H5COONa Pb(CH3COO)2 C17H35COONa HC2H3O2
H2 N2 O2 F2 Cl2 Br2 I2 P4 S8 P4O10 P4O6 NaAlO2 BaTiO3 LiCoO2 LiFePO4 MgSiO3 CaSiO3 Na2B4O7·10H2O
"""
"""Formulas that are typed in another way than the facts', and others: only their mass is asked."""
BEYOND = (
    "the melting point of {x}", "the boiling point of {x}", "the density of {x}",
    "the price of {x}", "the discoverer of {x}", "the half-life of {x}", "the solubility of {x}",
    "the pH of {x}",
    "the crystal structure of {x}", "the enthalpy of formation of {x}", "the structure of {x}",
    "the reaction of {x} with water", "the colour of {x}", "the smell of {x}", "the pKa of {x}",
    "a synthesis of {x}", "the CAS number of {x}", "the ionization energy of {x}",
    "the balanced equation of {x} with oxygen", "the isotopes of {x}",
    "the number of neutrons in {x}", "the number of valence electrons of {x}",
    "the number of moles in 10 g of {x}", "the mass of 3 moles of {x}",
    "the Lewis structure of {x}", "the mass percent of oxygen in {x}",
    "the number of atoms in 5 g of {x}", "the shape of {x}",
    "the bond angle in {x}", "the hybridization of {x}", "the polarity of {x}",
    "the mass of {x} in 2 litres of a 0.1 M solution",
)  # fmt: skip
BEYOND_ASKS = (
    "How many neutrons does {x} have?", "how many neutrons are in {x}", "Is {x} acidic or basic?",
    "How many valence electrons does {x} have?", "valence electrons of {x}", "Is {x} toxic?",
    "How many moles are 25 g of {x}?", "how many grams are 2.5 mol of {x}", "Does {x} burn?",
    "balance H2 + O2 -> H2O", "Balance the equation {x} + O2 -> {y}.", "balance {x} + {y} -> {y}",
    "What happens when {x} reacts with {y}?", "Is {x} a metal?", "What is {x} used for?",
    "How do you make {x}?", "which is heavier, {x} or {y}?", "Does {x} dissolve in water?",
)  # fmt: skip
ONE_CHARGE = {
    "copper(II)": "copper", "nickel(II)": "nickel", "cobalt(II)": "cobalt", "lead(II)": "lead",
    "manganese(II)": "manganese",
}  # fmt: skip
"""What people mean by these metals without a number. Iron, tin and mercury leave it open."""
UNEVEN = ((3, 4), (3, 8), (3, 5), (3, 7), (4, 7), (5, 9), (6, 11))
"""Atoms of a metal and of oxygen that give no whole oxidation state."""
FICTION = (
    "unobtainium", "vibranium", "adamantium", "mithril", "kryptonite", "naquadah", "octiron",
    "wakandium", "eternium", "orichalcum", "dilithium", "tiberium", "jerktonium", "upsidaisium",
)  # fmt: skip
_STARTS = (
    "zor", "bla", "quan", "myr", "dre", "flo", "gra", "vel", "xan", "pol", "tri", "kor", "lum",
    "bar", "ster", "mag", "nov", "astr", "ther", "ven", "dor", "sil", "cal", "hel", "fer", "car",
)  # fmt: skip
_MIDDLES = ("a", "o", "an", "on", "ith", "ar", "ell", "ub", "in", "er", "ov", "ast", "ig", "ur")
_ENDS = ("ium", "ium", "ium", "on", "ine", "um", "gen", "ite")


def sample(random: Random, kind: Kind | None = None) -> Problem:
    """A problem; its kind is drawn from `MIX` unless given."""
    kind = kind or random.choices(list(MIX), weights=list(MIX.values()))[0]
    while (problem := _SAMPLERS[kind](random, kind)) is None:
        pass
    return problem


def sample_training(random: Random, kind: Kind | None = None) -> Problem:
    """A problem that training may contain."""
    while (problem := sample(random, kind)).for_evaluation():
        pass
    return problem


def element(random: Random) -> Element:
    """An element; those that people ask for are twice as likely."""
    return random.choices(list(facts().elements.values()), weights=_element_weights())[0]


def compound(random: Random, molecules: float = 0.4) -> Compound:
    """A compound of the facts, or now and then any salt; `molecules` is the share of those that
    are no salts, after the ones with everyday names."""
    if random.random() < 0.12:
        return random.choice(_everyday())
    if random.random() < molecules:
        return random.choice(_molecules())
    if random.random() < 0.2:
        return any_salt(random)
    return random.choice(_salts())


def any_salt(random: Random) -> Compound:
    """Ions put together at random, whether or not anyone has made the salt."""
    cation, anion = random.choice(_ions(CATIONS)), random.choice(_ions(ANIONS))
    return Compound(salt_name(cation, anion), salt_formula(cation, anion), (cation, anion))


def _element_weights() -> list[int]:
    familiar = {"Ag", "Sn", "I", "Xe", "Cs", "Ba", "W", "Pt", "Au", "Hg", "Pb", "Rn", "Ra", "U"}
    elements = facts().elements.values()
    return [2 if e.number <= 38 or e.symbol in familiar else 1 for e in elements]


@cache
def _everyday() -> list[Compound]:
    return [compound for compound in facts().compounds.values() if compound.everyday]


@cache
def _molecules() -> list[Compound]:
    return [compound for compound in facts().compounds.values() if not compound.ions]


@cache
def _salts() -> list[Compound]:
    return [compound for compound in facts().compounds.values() if compound.ions]


def _ions(table: dict[str, Ion]) -> list[Ion]:
    return [ion for ion in table.values() if ion.name not in ("peroxide", "hydride", "nitride")]


@cache
def _named_by_formula() -> dict[str, Compound]:
    """The first compound of each formula: C2H6O is ethanol."""
    found: dict[str, Compound] = {}
    for entry in facts().compounds.values():
        found.setdefault(entry.formula, entry)
    return found


def _property(random: Random, kind: Kind) -> Problem:
    chosen = element(random)
    symbol = kind in OF_ELEMENT and random.random() < 0.2
    asked = chosen.symbol if symbol or kind == "element" else chosen.name
    return problems.property_of(kind, chosen, asked)


def _element_by(random: Random, kind: Kind) -> Problem | None:
    chosen = element(random)
    unclear = chosen.group in (None, 3) and chosen.period > 5
    if kind == "place" and unclear:
        return None
    problem = problems.element_by(kind, chosen)
    if kind == "by configuration" and chosen.number <= 36 and random.random() < 0.25:
        return problems.in_full(chosen)
    return problem


def _asked(chosen: Compound, random: Random) -> str:
    """A compound's name, or one that it has in everyday life."""
    if chosen.everyday and random.random() < 0.6:
        return random.choice(chosen.everyday)
    if chosen.ions and (plain := ONE_CHARGE.get(chosen.ions[0].name)) and random.random() < 0.3:
        return chosen.name.replace(chosen.ions[0].name, plain)
    return chosen.name


def _formula(random: Random, kind: Kind) -> Problem:
    chosen = compound(random, 0.55)
    return problems.formula_of(chosen, _asked(chosen, random))


def _name(random: Random, kind: Kind) -> Problem | None:
    chosen = compound(random, 0.35)
    return problems.name_of(_named_by_formula().get(chosen.formula, chosen))


def _ion(random: Random, kind: Kind) -> Problem:
    ion = random.choice([*CATIONS.values(), *ANIONS.values()])
    return problems.ion_formula(ion) if kind == "ion" else problems.ion_charge(ion)


def _molar_mass(random: Random, kind: Kind) -> Problem | None:
    chance = random.random()
    if chance > 0.97:
        ion = random.choice([i for i in (*CATIONS.values(), *ANIONS.values()) if i.polyatomic])
        asked = random.choice((str(ion), str(ion), ion.name, f"{ion.name} ion"))
        return problems.molar_mass(Compound("", ion.formula), asked)
    if chance < 0.2:
        formula = random.choice(TYPED.split()) if chance < 0.06 else _organic(random)
        return problems.molar_mass(Compound("", formula), formula)
    chosen = compound(random, 0.35)
    named = random.random() < 0.4
    return problems.molar_mass(chosen, _asked(chosen, random) if named else chosen.formula)


def _organic(random: Random) -> str:
    """A formula as organic compounds have it, in Hill's order."""
    carbon = random.randint(1, random.choice((8, 20, 30)))
    atoms = {"C": carbon, "H": random.randint(1, 2 * carbon + 2)}
    if random.random() < 0.15:
        atoms[random.choice(("Br", "Cl", "F", "I"))] = random.randint(1, 3)
    if random.random() < 0.35:
        atoms["N"] = random.randint(1, 5)
    if random.random() < 0.7:
        atoms["O"] = random.randint(1, 12)
    if random.random() < 0.12:
        atoms[random.choice(("P", "S"))] = random.randint(1, 2)
    return "".join(f"{symbol}{n if n > 1 else ''}" for symbol, n in atoms.items())


def _oxidation(random: Random, kind: Kind) -> Problem | None:
    if random.random() < 0.15:
        ion = random.choice([i for i in (*CATIONS.values(), *ANIONS.values()) if i.polyatomic])
        return problems.state_in_ion(ion, random.choice(list(counts(ion.formula))))
    chosen = compound(random, 0.3)
    symbol = random.choice(list(counts(chosen.formula)))
    asked = chosen.name if random.random() < 0.3 else chosen.formula
    return problems.oxidation_state(chosen, symbol, asked)


_SAMPLERS: dict[Kind, Callable[[Random, Kind], Problem | None]] = {
    **dict.fromkeys(("symbol", "element", *OF_ELEMENT), _property),
    **dict.fromkeys(("by number", "place", "by configuration"), _element_by),
    **dict.fromkeys(("ion", "charge"), _ion),
    "formula": _formula,
    "name": _name,
    "molar mass": _molar_mass,
    "oxidation": _oxidation,
}


def invented_name(random: Random) -> str:
    """A name that sounds like an element's and is far from all of them."""
    while True:
        name = random.choice(_STARTS) + random.choice(_MIDDLES) + random.choice(_ENDS)
        if random.random() < 0.25:
            name = random.choice(FICTION)
        names = [element.name for element in facts().elements.values()]
        if not get_close_matches(name, names, 1, 0.8):
            return name


def invented_symbol(random: Random) -> str:
    """A symbol that no element has."""
    while True:
        symbol = random.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        symbol += random.choice("abcdefghijklmnopqrstuvwxyz") if random.random() < 0.9 else ""
        if symbol not in facts().elements:
            return symbol


def unknown(random: Random) -> Problem:
    """A question of a known kind about something that does not exist; `answer` is "unknown"."""
    kind = random.choices(("named", "symbol", "number", "compound", "formula"), (4, 3, 3, 3, 2))[0]
    if kind == "named":
        asked: Kind = random.choice(("symbol", *OF_ELEMENT))
        name = invented_name(random)
        return _unknown(asked, name, problems.unknown_property(asked, name))
    if kind == "symbol":
        asked = random.choice(("element", "element", *OF_ELEMENT))
        symbol = invented_symbol(random)
        return _unknown(asked, symbol, problems.unknown_property(asked, symbol))
    if kind == "number":
        number = random.choice((0, random.randint(119, 200), random.randint(119, 999)))
        return _unknown("by number", str(number), problems.unknown_number(number))
    if kind == "compound":
        return _unknown_compound(random)
    real, symbol = any_salt(random).formula, invented_symbol(random)
    formula = re.sub(rf"{random.choice(list(counts(real)))}(?![a-z])", symbol, real)
    asked = random.choice(("molar mass", "molar mass", "name"))
    return _unknown(asked, formula, problems.unknown_formula(formula, symbol))


def _unknown_compound(random: Random) -> Problem:
    name = invented_name(random)
    written = random.choice(
        (
            f"{name} {random.choice(list(ANIONS))}",
            f"{random.choice(list(CATIONS))} {name.removesuffix('ium').removesuffix('ine')}ate",
            f"{name[:5]}yl{random.choice(('amine', ' alcohol', 'ane', ' acid'))}",
        )
    )
    asked: Kind = random.choice(("formula", "molar mass"))
    return _unknown(asked, written, problems.unknown_compound(written))


def uneven(random: Random) -> tuple[str, str, str]:
    """An oxide whose metal has no whole oxidation state: the metal's name, the formula, and the
    answer."""
    metals = [e for e in facts().elements.values() if e.block == "d" and e.period < 7]
    metal, (many, oxygen) = random.choice(metals), random.choice(UNEVEN)
    formula = f"{metal.symbol}{many}O{oxygen}"
    return metal.name, formula, problems.no_whole_state(metal, formula, many, oxygen)


def _unknown(kind: Kind, asked: str, answer: str) -> Problem:
    return Problem(kind, asked, "unknown", answer)


def beyond(random: Random) -> str:
    """A noun phrase for what the expert does not know of a substance that exists, or for the molar
    mass of a molecule that is too large."""
    if random.random() < 0.15:
        most = {"C": 900, "H": 1500, "N": 300, "O": 400, "S": 9}
        atoms = (f"{symbol}{random.randint(n // 9, n)}" for symbol, n in most.items())
        return f"the molar mass of {''.join(atoms)}"
    return random.choice(BEYOND).format(x=_any_substance(random))


def beyond_question(random: Random) -> str:
    """A question that is no noun phrase in a frame."""
    return random.choice(BEYOND_ASKS).format(x=_any_substance(random), y=_any_substance(random))


def _any_substance(random: Random) -> str:
    while kept(chosen := compound(random)):
        pass
    return random.choice((element(random).name, chosen.name, chosen.formula))
