"""Ions and how they make up salts: charges, names, formulas. `collect` checks every ion against
the library `chemicals`."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd


@dataclass(frozen=True)
class Ion:
    """An ion; `charge` is signed. "SO4" with -2 is the sulfate ion."""

    name: str
    formula: str
    charge: int

    @property
    def polyatomic(self) -> bool:
        """Whether it needs brackets where a salt holds more than one."""
        return sum(letter.isupper() or letter.isdigit() for letter in self.formula) > 1

    def __str__(self) -> str:
        """As chemists type it: "SO4 2-", "Na+"."""
        size = abs(self.charge)
        sign = "+" if self.charge > 0 else "-"
        return f"{self.formula} {size}{sign}" if size > 1 else f"{self.formula}{sign}"


_CATIONS = """
lithium Li 1, sodium Na 1, potassium K 1, rubidium Rb 1, cesium Cs 1, silver Ag 1,
ammonium NH4 1, beryllium Be 2, magnesium Mg 2, calcium Ca 2, strontium Sr 2, barium Ba 2,
zinc Zn 2, cadmium Cd 2, aluminum Al 3, gallium Ga 3, scandium Sc 3, yttrium Y 3, lanthanum La 3,
iron(II) Fe 2, iron(III) Fe 3, copper(I) Cu 1, copper(II) Cu 2, lead(II) Pb 2, lead(IV) Pb 4,
tin(II) Sn 2, tin(IV) Sn 4, mercury(II) Hg 2, manganese(II) Mn 2, manganese(IV) Mn 4,
chromium(II) Cr 2, chromium(III) Cr 3, cobalt(II) Co 2, cobalt(III) Co 3, nickel(II) Ni 2,
titanium(III) Ti 3, titanium(IV) Ti 4, zirconium(IV) Zr 4, vanadium(III) V 3, bismuth(III) Bi 3,
gold(I) Au 1, gold(III) Au 3, cerium(III) Ce 3, cerium(IV) Ce 4
"""
_ANIONS = """
fluoride F -1, chloride Cl -1, bromide Br -1, iodide I -1, oxide O -2, sulfide S -2,
selenide Se -2, nitride N -3, phosphide P -3, hydride H -1, hydroxide OH -1, peroxide O2 -2,
nitrate NO3 -1, nitrite NO2 -1, sulfate SO4 -2, sulfite SO3 -2, hydrogen sulfate HSO4 -1,
thiosulfate S2O3 -2, carbonate CO3 -2, hydrogen carbonate HCO3 -1, phosphate PO4 -3,
hydrogen phosphate HPO4 -2, dihydrogen phosphate H2PO4 -1, acetate CH3COO -1, formate HCOO -1,
oxalate C2O4 -2, cyanide CN -1, thiocyanate SCN -1, hypochlorite ClO -1, chlorite ClO2 -1,
chlorate ClO3 -1, perchlorate ClO4 -1, bromate BrO3 -1, iodate IO3 -1, permanganate MnO4 -1,
chromate CrO4 -2, dichromate Cr2O7 -2, molybdate MoO4 -2, tungstate WO4 -2, silicate SiO3 -2,
arsenate AsO4 -3, selenate SeO4 -2
"""


def _read(table: str) -> dict[str, Ion]:
    rows = [row.rsplit(maxsplit=2) for row in table.replace("\n", " ").strip().split(",")]
    return {name.strip(): Ion(name.strip(), formula, int(charge)) for name, formula, charge in rows}


CATIONS, ANIONS = _read(_CATIONS), _read(_ANIONS)
HYDRATES = (
    "", "mono", "di", "tri", "tetra", "penta", "hexa", "hepta", "octa", "nona", "deca",
)  # fmt: skip
"""The prefix of "hydrate" for each number of water molecules."""


def numbers(cation: Ion, anion: Ion) -> tuple[int, int]:
    """How many of each make a neutral salt, as few as possible."""
    common = gcd(cation.charge, anion.charge)
    return -anion.charge // common, cation.charge // common


def salt_formula(cation: Ion, anion: Ion, water: int = 0) -> str:
    """ "Al2(SO4)3"; with water "CuSO4·5H2O"."""
    parts = []
    for ion, number in zip((cation, anion), numbers(cation, anion), strict=True):
        body = f"({ion.formula})" if ion.polyatomic and number > 1 else ion.formula
        parts.append(body + (str(number) if number > 1 else ""))
    if water:
        parts.append(f"·{water if water > 1 else ''}H2O")
    return "".join(parts)


def salt_name(cation: Ion, anion: Ion, water: int = 0) -> str:
    """ "copper(II) sulfate pentahydrate"."""
    name = f"{cation.name} {anion.name}"
    return f"{name} {HYDRATES[water]}hydrate" if water else name
