"""How people ask about elements and compounds: wording, spelling, ways to type a formula."""

from __future__ import annotations

import re
from functools import cache
from random import Random

from experts.starter.chemistry.facts import facts
from experts.starter.chemistry.problems import Kind, Problem
from experts.starter.wording import disturb

NOUNS: dict[Kind, tuple[str, ...]] = {
    "symbol": (
        "the symbol of {x}", "the chemical symbol of {x}", "the symbol for {x}",
        "the chemical symbol for {x}", "the element symbol of {x}",
    ),
    "element": (
        "the element with the symbol {x}", "the name of the element {x}",
        "the element {x}", "the element whose symbol is {x}",
    ),
    "number": (
        "the atomic number of {x}", "the atomic number for {x}", "the proton number of {x}",
        "{x}'s atomic number",
    ),
    "by number": (
        "the element with atomic number {x}", "the element with the atomic number {x}",
        "element number {x}", "element {x} of the periodic table", "the element with {x} protons",
    ),
    "mass": (
        "the atomic mass of {x}", "the atomic weight of {x}", "the relative atomic mass of {x}",
        "{x}'s atomic mass", "the standard atomic weight of {x}",
    ),
    "group": (
        "the group of {x}", "the group number of {x}", "the periodic table group of {x}",
    ),
    "period": ("the period of {x}", "the period number of {x}", "the periodic table row of {x}"),
    "block": ("the block of {x}", "the periodic table block of {x}"),
    "place": (
        "the element in group {x}, period {y}", "the element in group {x} and period {y}",
        "the element in period {y} and group {x}", "the group {x} element of period {y}",
    ),
    "electronegativity": (
        "the electronegativity of {x}", "the Pauling electronegativity of {x}",
        "{x}'s electronegativity", "the electronegativity of {x} (Pauling)",
    ),
    "configuration": (
        "the electron configuration of {x}", "the electronic configuration of {x}",
        "the ground state electron configuration of {x}", "the short electron configuration of {x}",
        "the noble gas configuration of {x}",
    ),
    "by configuration": (
        "the element with the electron configuration {x}", "the element with configuration {x}",
        "the element whose electron configuration is {x}",
    ),
    "protons": ("the number of protons in {x}", "the number of protons of {x}"),
    "electrons": ("the number of electrons in {x}", "the number of electrons of a {x} atom"),
    "formula": (
        "the formula of {x}", "the chemical formula of {x}", "the formula for {x}",
        "the chemical formula for {x}", "the molecular formula of {x}",
    ),
    "name": (
        "the name of {x}", "the chemical name of {x}", "the compound {x}",
        "the compound with the formula {x}", "the name of the compound {x}",
    ),
    "ion": ("the formula of the {x} ion", "the {x} ion's formula", "the formula of {x} ion"),
    "charge": ("the charge of the {x} ion", "the charge on the {x} ion", "the charge of {x}"),
    "molar mass": (
        "the molar mass of {x}", "the molar mass of {x} in g/mol", "the molecular weight of {x}",
        "the molecular mass of {x}", "the formula mass of {x}", "the formula weight of {x}",
        "the mass of one mole of {x}", "the molar mass for {x}",
    ),
    "oxidation": (
        "the oxidation state of {x} in {y}", "the oxidation number of {x} in {y}",
        "{x}'s oxidation state in {y}", "the oxidation state that {x} has in {y}",
    ),
}  # fmt: skip
"""What is asked for, as a noun phrase."""
FRAMES = (
    "What is {}?", "what is {}?", "what is {}", "What's {}?", "whats {}", "Tell me {}.",
    "tell me {}", "Give {}.", "give me {}", "Can you tell me {}?", "could you tell me what {} is?",
    "I need {}.", "Do you know {}?", "do you know what {} is?", "Please tell me {}.", "Find {}.",
    "find {}", "State {}.", "{}?", "{}", "{} please", "quick question: what is {}?",
    "I'd like to know {}.", "I forgot {}.", "hey, what is {}?", "Hi! What is {}?", "Waht is {}?",
    "what's {} again?", "So what would {} be?", "For my homework: what is {}?", "Determine {}.",
    "Remind me: what is {}?", "I have to know {} for class.",
)  # fmt: skip
ASKS: dict[Kind, tuple[str, ...]] = {
    "symbol": (
        "How is {x} abbreviated in the periodic table?", "Which symbol does {x} have?",
        "what symbol stands for {x}", "symbol {x}", "{x} symbol", "Which letters stand for {x}?",
    ),
    "element": (
        "Which element is {x}?", "Which element has the symbol {x}?", "What does {x} stand for?",
        "what element is {x}", "{x} is the symbol of which element?", "What element does {x} mean?",
        "what element has symbol {x}", "In the periodic table, what is {x}?",
    ),
    "number": (
        "Which atomic number does {x} have?", "what number is {x} in the periodic table?",
        "{x} atomic number", "Where does {x} stand in the periodic table, what number?",
        "what atomic number has {x}",
    ),
    "by number": (
        "Which element has atomic number {x}?", "What element has the atomic number {x}?",
        "Which element has {x} protons?", "which element is number {x}", "atomic number {x}",
        "What element is number {x} in the periodic table?", "name the element with {x} protons",
    ),
    "mass": (
        "How heavy is an atom of {x}?", "{x} atomic mass", "How much does a {x} atom weigh in u?",
        "atomic weight {x}", "What atomic mass does {x} have?",
    ),
    "group": (
        "Which group is {x} in?", "In which group is {x}?", "what group does {x} belong to",
        "To which group of the periodic table does {x} belong?", "what group is {x} in",
    ),
    "period": (
        "Which period is {x} in?", "In which period is {x}?", "what period does {x} belong to",
        "In which row of the periodic table is {x}?", "what period is {x} in",
    ),
    "block": (
        "Which block is {x} in?", "In which block of the periodic table is {x}?",
        "Is {x} an s, p, d or f block element?", "what block does {x} belong to",
    ),
    "place": (
        "Which element is in group {x} and period {y}?",
        "What element is in group {x}, period {y}?",
        "Which element stands in period {y}, group {x}?", "group {x} period {y} element",
    ),
    "electronegativity": (
        "How electronegative is {x}?", "Which electronegativity does {x} have?",
        "{x} electronegativity", "electronegativity {x}", "How electronegative is {x} (Pauling)?",
    ),
    "configuration": (
        "How are the electrons of {x} arranged?", "{x} electron configuration",
        "Write the electron configuration of {x}.", "write the electron config of {x}",
        "Which electron configuration does {x} have?", "electron configuration {x}",
    ),
    "by configuration": (
        "Which element has the electron configuration {x}?", "what element is {x}",
        "Which element is {x}?", "{x} is which element?", "What element has configuration {x}?",
    ),
    "protons": (
        "How many protons does {x} have?", "how many protons are in {x}", "protons in {x}?",
        "How many protons are in an atom of {x}?", "how many protons has {x}",
    ),
    "electrons": (
        "How many electrons does {x} have?", "how many electrons are in {x}",
        "How many electrons are in a neutral atom of {x}?", "electrons of {x}?",
    ),
    "formula": (
        "How do you write {x} as a formula?", "Write the formula of {x}.", "{x} formula",
        "Which formula does {x} have?", "formula {x}", "write {x} as a chemical formula",
        "What is {x} in chemical symbols?", "chemical formula {x}", "How is {x} written?",
    ),
    "name": (
        "What is {x}?", "what is {x}", "Name {x}.", "name {x}", "Name the compound {x}.",
        "Which compound is {x}?", "What compound is {x}?", "What is {x} called?",
        "what is the substance {x} called", "How do you name {x}?", "What does {x} stand for?",
        "Which compound has the formula {x}?", "{x} is the formula of what?", "{x} name",
    ),
    "ion": (
        "Which formula does the {x} ion have?", "How is the {x} ion written?", "{x} ion formula",
        "Write the formula of the {x} ion.", "formula and charge of {x} ion?",
    ),
    "charge": (
        "Which charge does the {x} ion have?", "What charge has the {x} ion?", "{x} ion charge",
        "How is the {x} ion charged?", "what's the charge of {x}",
    ),
    "molar mass": (
        "How much does a mole of {x} weigh?", "{x} molar mass", "molar mass {x}",
        "Calculate the molar mass of {x}.", "calculate the molar mass of {x}", "M({x})?",
        "Compute the molar mass of {x}.", "work out the molar mass of {x}", "{x} g/mol?",
        "How heavy is one mole of {x}?", "How many grams is one mole of {x}?",
        "what does 1 mol of {x} weigh", "Determine the molecular weight of {x}.",
        "calc molar mass of {x}", "What molar mass does {x} have?", "molecular weight {x}",
        "How many grams per mole is {x}?", "MW of {x}", "what's the MW of {x}?",
        "Find the molar mass of {x} step by step.",
    ),
    "oxidation": (
        "Which oxidation state does {x} have in {y}?", "oxidation number of {x} in {y}",
        "In {y}, what is the oxidation state of {x}?", "oxidation state {x} {y}",
        "What oxidation state has {x} in {y}?", "Determine the oxidation number of {x} in {y}.",
        "in {y}, what oxidation number does {x} have", "Work out the oxidation state of {x} in {y}",
    ),
}  # fmt: skip
"""Questions that are no frame around a noun phrase."""
OF_ELEMENT: tuple[Kind, ...] = (
    "number", "mass", "group", "period", "block", "electronegativity", "configuration", "protons",
    "electrons",
)  # fmt: skip
"""What may be asked with an element's symbol too."""
LEADS = (
    "Then tell me {}.", "Then, what is {}?", "Also, what is {}?", "and what is {}?",
    "Then give {}.", "After that, tell me {}.", "Second, {}.", "And also tell me {}.", "Next, {}?",
    "Then please give me {}.", "plus: what's {}", "Then {}.",
)  # fmt: skip
SPELLINGS = {"aluminum": "aluminium", "cesium": "caesium", "sulf": "sulph"}
OLD_CATIONS = {
    "iron(II)": "ferrous", "iron(III)": "ferric", "copper(I)": "cuprous", "copper(II)": "cupric",
}  # fmt: skip
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def ask(problem: Problem, random: Random) -> str:
    """A question a person might type for `problem`."""
    kind = problem.kind
    if random.random() < 0.45:
        question = random.choice(ASKS[kind])
    else:
        question = random.choice(FRAMES).format(random.choice(NOUNS[kind]))
    # A formula keeps its letters' case when the question loses it.
    question = disturb(question.format(x="\0", y="\1"), random)
    x, y = typed(problem.x, random), typed(problem.y, random)
    return question.replace("\0", x).replace("\1", y)


def noun(problem: Problem, random: Random) -> str:
    """What is asked for, as a noun phrase: "the molar mass of NaCl"."""
    form = random.choice(NOUNS[problem.kind])
    return form.format(x=typed(problem.x, random), y=typed(problem.y, random))


def typed(name: str, random: Random) -> str:
    """A name or formula as someone types it."""
    if re.fullmatch(r"[A-Z(][A-Za-z0-9()·]*", name) and re.search(r"\d|[a-z][A-Z]|[A-Z]{2}", name):
        return _typed_formula(name, random)
    if re.fullmatch(r"[A-Z][A-Za-z0-9()]*( \d)?[+-]", name):
        return _typed_ion(name, random)
    if name[:1] == "[":
        return name.replace("] ", "]") if random.random() < 0.2 else name
    if not name or name[0].isupper() or name[0].isdigit():
        return name
    return _typed_name(name, random)


def _typed_ion(ion: str, random: Random) -> str:
    """ "SO4 2-" as "SO4^2-", "SO42-" and the like."""
    formula, _, charge = ion.partition(" ")
    if not charge:
        return ion
    turned = str.maketrans("0123456789+-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻")
    return random.choice(
        (ion, ion, f"{formula}^{charge}", f"{formula}^{charge}", f"{formula}{charge}",
         f"{formula}({charge})", formula.translate(SUBSCRIPTS) + charge.translate(turned))
    )  # fmt: skip


def _typed_formula(formula: str, random: Random) -> str:
    if "·" in formula:
        formula = formula.replace("·", random.choice(("·", "·", ".", "*", " · ")))
    elif random.random() < 0.05:
        return formula.translate(SUBSCRIPTS)
    if random.random() < 0.1 and _plain_in_lower_case(formula):
        return formula.lower()
    return formula


def _plain_in_lower_case(formula: str) -> bool:
    """Whether small letters mean this formula: "nacl" can be no other, and of those that could,
    such as "co2", it is the only one that is known. "co" is left to the element."""
    if formula in _known_in_lower_case().get(formula.lower(), ()):
        alone = len(_known_in_lower_case()[formula.lower()]) == 1
        return alone and formula.capitalize() not in facts().elements
    letters = "".join(re.findall("[a-z]", formula.lower()))
    symbols = {symbol.lower() for symbol in facts().elements}
    ways = [1] + [0] * len(letters)
    for end in range(1, len(letters) + 1):
        for size in (1, 2):
            if size <= end and letters[end - size : end] in symbols:
                ways[end] += ways[end - size]
    return ways[-1] == 1


@cache
def _known_in_lower_case() -> dict[str, set[str]]:
    """The known formulas by their small letters."""
    known: dict[str, set[str]] = {}
    for compound in facts().compounds.values():
        known.setdefault(compound.formula.lower(), set()).add(compound.formula)
    return known


def _typed_name(name: str, random: Random) -> str:
    for cation, old in OLD_CATIONS.items():
        if name.startswith(f"{cation} ") and random.random() < 0.15:
            name = name.replace(cation, old)
    chance = random.random()
    if chance < 0.1:
        name = name.replace("(", " (")
    elif chance < 0.15:
        name = re.sub(r"\((\w+)\)", r" \1", name)
    elif chance < 0.2:
        name = re.sub(r"\((\w+)\)", lambda roman: f"({roman[1].lower()})", name)
    if random.random() < 0.15:
        for here, there in SPELLINGS.items():
            name = name.replace(here, there)
    chance = random.random()
    if chance < 0.08:
        return name[0].upper() + name[1:]
    if chance < 0.1 and len(name) > 6 and name.isalpha():
        spot = random.randrange(2, len(name) - 1)
        return name[:spot] + name[spot + 1 :]
    return name
