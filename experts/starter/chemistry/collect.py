"""Writes `facts.json` from the libraries `mendeleev` (elements) and `chemicals` (compounds).

`python -m experts.starter.chemistry.collect` needs `pip install -e '.[starter]'`; training does
not. What is listed here are candidates: a salt or a molecule becomes a fact only if the library
knows a substance by that name that has the same atoms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from itertools import product
from typing import Any

from chemicals.elements import nested_formula_parser, simple_formula_parser
from chemicals.identifiers import search_chemical
from mendeleev.fetch import fetch_table

from experts.starter.chemistry.facts import FACTS_FILE
from experts.starter.chemistry.ions import ANIONS, CATIONS, Ion, salt_formula, salt_name

HYDRATED = """
copper(II) sulfate 5, iron(II) sulfate 7, magnesium sulfate 7, zinc sulfate 7, sodium carbonate 10,
sodium sulfate 10, calcium sulfate 2, calcium chloride 2, calcium chloride 6, barium chloride 2,
cobalt(II) chloride 6, nickel(II) chloride 6, nickel(II) sulfate 6, magnesium chloride 6,
sodium thiosulfate 5, iron(III) chloride 6, iron(III) nitrate 9, aluminum chloride 6,
aluminum nitrate 9, copper(II) nitrate 3, copper(II) chloride 2, zinc nitrate 6, zinc acetate 2,
sodium acetate 3, manganese(II) sulfate 1, manganese(II) chloride 4, cobalt(II) nitrate 6,
cobalt(II) sulfate 7, magnesium nitrate 6, calcium nitrate 4, strontium chloride 6,
sodium phosphate 12, sodium molybdate 2, sodium tungstate 2, tin(II) chloride 2, lead(II) acetate 3,
barium hydroxide 8, lithium hydroxide 1, chromium(III) chloride 6, chromium(III) nitrate 9,
nickel(II) nitrate 6, iron(II) chloride 4, aluminum sulfate 18, sodium dichromate 2
"""
INORGANIC = """
water H2O, ammonia NH3, hydrogen peroxide H2O2, hydrazine N2H4, carbon monoxide CO,
carbon dioxide CO2, carbon disulfide CS2, carbon tetrachloride CCl4, nitric oxide NO,
nitrous oxide N2O, nitrogen dioxide NO2, dinitrogen tetroxide N2O4, dinitrogen trioxide N2O3,
dinitrogen pentoxide N2O5, nitrogen trifluoride NF3, nitrogen trichloride NCl3,
sulfur dioxide SO2, sulfur trioxide SO3, sulfur hexafluoride SF6, sulfur tetrafluoride SF4,
hydrogen sulfide H2S, hydrogen selenide H2Se, phosphine PH3, phosphorus trichloride PCl3,
phosphorus pentachloride PCl5, phosphorus trifluoride PF3, phosphorus pentafluoride PF5,
phosphorus tribromide PBr3, silicon dioxide SiO2, silane SiH4,
silicon tetrachloride SiCl4, silicon tetrafluoride SiF4, silicon carbide SiC,
silicon nitride Si3N4, boron trifluoride BF3, boron trichloride BCl3, boron tribromide BBr3,
boron nitride BN, diborane B2H6, arsine AsH3, arsenic trioxide As2O3, arsenic trichloride AsCl3,
germanium dioxide GeO2, tungsten hexafluoride WF6, uranium hexafluoride UF6,
uranium dioxide UO2, osmium tetroxide OsO4, ruthenium tetroxide RuO4, molybdenum trioxide MoO3,
tungsten trioxide WO3, vanadium pentoxide V2O5, chromium trioxide CrO3, niobium pentoxide Nb2O5,
tantalum pentoxide Ta2O5, xenon difluoride XeF2, xenon tetrafluoride XeF4, xenon hexafluoride XeF6,
chlorine dioxide ClO2, chlorine trifluoride ClF3, iodine monochloride ICl, bromine trifluoride BrF3,
iodine pentafluoride IF5, iodine heptafluoride IF7, oxygen difluoride OF2, selenium dioxide SeO2,
tellurium dioxide TeO2, hydrogen fluoride HF, hydrogen chloride HCl, hydrogen bromide HBr,
hydrogen iodide HI, hydrogen cyanide HCN, sulfuric acid H2SO4, sulfurous acid H2SO3,
nitric acid HNO3, nitrous acid HNO2, phosphoric acid H3PO4, phosphorous acid H3PO3,
carbonic acid H2CO3, perchloric acid HClO4, chloric acid HClO3, hypochlorous acid HClO,
boric acid H3BO3, chromic acid H2CrO4, iodic acid HIO3, bromic acid HBrO3, selenic acid H2SeO4,
phosgene COCl2, thionyl chloride SOCl2, sulfuryl chloride SO2Cl2, ozone O3,
gallium arsenide GaAs
"""
ORGANIC = """
cyclohexane, butadiene, ethyl acetate, vanillin,
methane, ethane, propane, butane, pentane, hexane, heptane, octane, nonane, decane, undecane,
dodecane, ethylene, propylene, 1-butene, 1-pentene, 1-hexene, acetylene, propyne, 1-butyne,
isobutane, cyclopropane, cyclobutane, cyclopentane, cyclohexene, isoprene,
methanol, ethanol, isopropanol, 1-propanol, 1-butanol, 1-pentanol, 1-hexanol, 1-octanol,
ethylene glycol, propylene glycol, glycerol, sorbitol, xylitol, phenol, catechol, formaldehyde,
acetaldehyde, acetone, propionaldehyde, benzaldehyde, acrolein, cyclohexanone, formic acid,
acetic acid, propionic acid, butyric acid, valeric acid, oxalic acid, malonic acid, succinic acid,
lactic acid, malic acid, tartaric acid, citric acid, maleic acid, adipic acid, benzoic acid,
salicylic acid, phthalic acid, stearic acid, palmitic acid, oleic acid, linoleic acid, lauric acid,
ascorbic acid, folic acid, nicotinic acid, uric acid, barbituric acid, pyruvic acid,
methyl acetate, ethyl formate, methyl salicylate, dimethyl ether, diethyl ether,
tetrahydrofuran, furan, furfural, dioxane, ethylene oxide, propylene oxide, benzene, toluene,
ethylbenzene, styrene, naphthalene, anthracene, phenanthrene, biphenyl, aniline, nitrobenzene,
pyridine, pyrrole, thiophene, imidazole, indole, quinoline, methylamine, dimethylamine,
trimethylamine, ethylamine, ethanolamine, urea, thiourea, acetamide, formamide,
dimethylformamide, dimethyl sulfoxide, acetonitrile, acrylonitrile, nitromethane, nitroglycerin,
trinitrotoluene, melamine, chloroform, dichloromethane, chloromethane, bromoform, iodoform,
chloroethane, vinyl chloride, trichloroethylene, tetrafluoroethylene, chlorobenzene, bromobenzene,
glycine, alanine, valine, leucine, isoleucine, serine, threonine, cysteine, methionine, proline,
phenylalanine, tyrosine, tryptophan, histidine, lysine, arginine, asparagine, glutamine,
aspartic acid, glutamic acid, glucose, fructose, galactose, ribose, mannose, sucrose, lactose,
maltose, caffeine, morphine, cocaine, aspirin, paracetamol, ibuprofen,
naproxen, diazepam, penicillin G, dopamine, serotonin, adrenaline, histamine, melatonin,
cholesterol, testosterone, estradiol, progesterone, cortisol, adenine, guanine, cytosine, thymine,
uracil, adenosine, theobromine, theophylline, riboflavin, retinol, menthol, camphor,
limonene, capsaicin, saccharin, aspartame, sucralose, quinine, warfarin, metformin,
lidocaine, ketamine, amphetamine, ephedrine, squalene, eugenol, thymol, linalool,
creatine, taurine, carnitine, biotin
"""
"""Of isomers the first is the one that is meant by the formula."""
EVERYDAY = """
table salt: sodium chloride, rock salt: sodium chloride, baking soda: sodium hydrogen carbonate,
sodium bicarbonate: sodium hydrogen carbonate, washing soda: sodium carbonate decahydrate,
soda ash: sodium carbonate, quicklime: calcium oxide, lime: calcium oxide,
slaked lime: calcium hydroxide, limestone: calcium carbonate, calcite: calcium carbonate,
chalk: calcium carbonate, caustic soda: sodium hydroxide, lye: sodium hydroxide,
caustic potash: potassium hydroxide, potash: potassium carbonate, saltpeter: potassium nitrate,
chile saltpeter: sodium nitrate, gypsum: calcium sulfate dihydrate,
epsom salt: magnesium sulfate heptahydrate,
blue vitriol: copper(II) sulfate pentahydrate, green vitriol: iron(II) sulfate heptahydrate,
milk of magnesia: magnesium hydroxide, magnesia: magnesium oxide, alumina: aluminum oxide,
hematite: iron(III) oxide, pyrolusite: manganese(IV) oxide, rutile: titanium(IV) oxide,
titanium dioxide: titanium(IV) oxide, galena: lead(II) sulfide, cinnabar: mercury(II) sulfide,
fluorite: calcium fluoride, barite: barium sulfate,
magnesite: magnesium carbonate, lunar caustic: silver nitrate, sal ammoniac: ammonium chloride,
sphalerite: zinc sulfide, hypo: sodium thiosulfate pentahydrate, quartz: silicon dioxide,
silica: silicon dioxide, laughing gas: nitrous oxide, dry ice: carbon dioxide,
oil of vitriol: sulfuric acid, muriatic acid: hydrogen chloride,
hydrochloric acid: hydrogen chloride, hydrofluoric acid: hydrogen fluoride,
hydrobromic acid: hydrogen bromide, hydroiodic acid: hydrogen iodide, wood alcohol: methanol,
grain alcohol: ethanol, alcohol: ethanol, vitamin C: ascorbic acid, TNT: trinitrotoluene,
acetaminophen: paracetamol, ethene: ethylene, propene: propylene, ethyne: acetylene,
propan-2-ol: isopropanol, rubbing alcohol: isopropanol, glycerine: glycerol,
acetylsalicylic acid: aspirin, methanal: formaldehyde, ethanal: acetaldehyde,
methanoic acid: formic acid, ethanoic acid: acetic acid, propanone: acetone,
trichloromethane: chloroform, epinephrine: adrenaline, dextrose: glucose, table sugar: sucrose,
cane sugar: sucrose, milk sugar: lactose, nitrogen monoxide: nitric oxide,
dinitrogen monoxide: nitrous oxide, DMSO: dimethyl sulfoxide, corundum: aluminum oxide,
vitamin B2: riboflavin, bleach: sodium hypochlorite
"""
PEROXIDES = ("lithium", "sodium", "potassium", "magnesium", "calcium", "strontium", "barium")
THOUSANDTH = Decimal("0.001")
OLD_NAMES = {
    "iron(II)": "ferrous", "iron(III)": "ferric", "copper(I)": "cuprous", "copper(II)": "cupric",
    "tin(II)": "stannous", "tin(IV)": "stannic", "mercury(II)": "mercuric",
}  # fmt: skip


def elements() -> Iterator[dict[str, Any]]:
    """All 118. `group` is null for lanthanides and actinides, `electronegativity` (Pauling) where
    the library has none."""
    for row in fetch_table("elements").itertuples():
        configuration = re.sub(r"([spdf])(?= |$)", r"\g<1>1", row.electronic_configuration)
        stable = not row.is_radioactive
        yield {
            "number": row.atomic_number,
            "symbol": row.symbol,
            "name": row.name.lower(),
            "mass": str(Decimal(str(row.atomic_weight)).quantize(THOUSANDTH, ROUND_HALF_UP)),
            "group": int(row.group_id) if row.group_id == row.group_id else None,
            "period": row.period,
            "block": row.block,
            "electronegativity": f"{row.en_pauling:.2f}" if row.en_pauling > 0 else None,
            "configuration": configuration,
            "stable": stable,
        }


def found(name: str) -> dict[str, int] | None:
    """The atoms of the neutral substance that the library knows by this name."""
    try:
        formula: str = search_chemical(name).formula
    except (ValueError, KeyError):
        return None
    return None if formula[-1] in "+-" else dict(simple_formula_parser(formula))


def salts() -> Iterator[dict[str, Any]]:
    """Salts, hydroxides and oxides that the library knows, then their hydrates."""
    dry = [(cation, anion, 0) for cation, anion in product(CATIONS.values(), ANIONS.values())]
    for cation, anion, water in [*dry, *_hydrated()]:
        if anion.name == "peroxide" and cation.name not in PEROXIDES:
            continue  # PbO2 is lead(IV) oxide
        name, atoms = salt_name(cation, anion, water), _atoms(salt_formula(cation, anion, water))
        names = [name, name.replace(cation.name, OLD_NAMES.get(cation.name, cation.name))]
        names.append(re.sub(r"\(\w+\)", "", name))
        if any(found(candidate) == atoms for candidate in names):
            yield {"name": name, "cation": cation.name, "anion": anion.name, "water": water}


def molecules() -> Iterator[dict[str, Any]]:
    """What is not made of ions. Carbon compounds have the library's formula (Hill's order)."""
    for entry in _entries(INORGANIC):
        name, formula = entry.rsplit(" ", 1)
        if found(name) == _atoms(formula):
            yield {"name": name, "formula": formula}
    for name in _entries(ORGANIC):
        if found(name) is not None:
            yield {"name": name, "formula": search_chemical(name).formula}


def everyday(names: set[str]) -> dict[str, str]:
    """Everyday name → systematic name, where the library knows both as the same atoms."""
    pairs = [entry.split(": ") for entry in _entries(EVERYDAY)]
    return {
        everyday: name
        for everyday, name in pairs
        if name in names and found(everyday) is not None and found(everyday) == found(name)
    }


def check_ions(known: list[dict[str, Any]]) -> None:
    """Every ion is in the library, or in a salt of it that holds exactly one other ion.

    Raises ValueError with the ions that are in neither.
    """
    used = {salt["cation"] for salt in known} | {salt["anion"] for salt in known}
    ions = [*CATIONS.values(), *ANIONS.values()]
    if strange := [str(ion) for ion in ions if ion.name not in used and not _known(ion)]:
        raise ValueError(f"the library knows neither these ions nor their salts: {strange}")


def _known(ion: Ion) -> bool:
    try:
        formula = search_chemical(f"{ion.name} ion").formula
    except (ValueError, KeyError):
        return False
    return bool(re.search(rf"{'+' if ion.charge > 0 else '-'}{abs(ion.charge)}?$", formula))


def _hydrated() -> Iterator[tuple[Ion, Ion, int]]:
    for entry in _entries(HYDRATED):
        cation, anion, water = entry.split(" ")
        if int(water) <= 10:
            yield CATIONS[cation], ANIONS[anion], int(water)


def _entries(table: str) -> list[str]:
    return [entry.strip() for entry in table.replace("\n", " ").split(",")]


def _atoms(formula: str) -> dict[str, int]:
    dry, _, water = formula.partition("·")
    atoms = dict(nested_formula_parser(dry))
    if water:
        count = int(water.removesuffix("H2O") or 1)
        atoms["H"] = atoms.get("H", 0) + 2 * count
        atoms["O"] = atoms.get("O", 0) + count
    return {symbol: int(count) for symbol, count in atoms.items()}


def main() -> None:
    """Write the file, one fact a line."""
    known = list(salts())
    check_ions(known)
    others = list(molecules())
    names = {fact["name"] for fact in [*known, *others]}
    tables = {"elements": list(elements()), "salts": known, "molecules": others}
    lines = [
        f'"{title}": [\n' + ",\n".join(json.dumps(fact) for fact in facts) + "\n]"
        for title, facts in tables.items()
    ]
    lines.append(f'"everyday": {json.dumps(everyday(names), indent=0)}')
    FACTS_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print({title: len(facts) for title, facts in tables.items()})
    given = [entry.rsplit(" ", 1)[0] for entry in _entries(INORGANIC)] + _entries(ORGANIC)
    print("not in the library:", [name for name in given if name not in names])


if __name__ == "__main__":
    main()
