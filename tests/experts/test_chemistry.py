"""The chemistry expert's data: facts as the libraries have them, right workings, no leaks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from itertools import islice, pairwise, product
from random import Random

import pytest
from chemicals.elements import nested_formula_parser, periodic_table, simple_formula_parser
from chemicals.identifiers import search_chemical
from mendeleev.fetch import fetch_table

from experts.manifest import load_manifest
from experts.starter.chemistry import data, problems, questions, sampling
from experts.starter.chemistry.answers import is_correct
from experts.starter.chemistry.data import examples
from experts.starter.chemistry.facts import Compound, facts
from experts.starter.chemistry.formulas import counting, counts
from experts.starter.chemistry.ions import ANIONS, CATIONS, salt_formula, salt_name
from experts.starter.chemistry.phrasing import ask
from experts.starter.chemistry.problems import Problem

QUESTIONS = [
    json.loads(line)
    for line in (questions.FOLDER / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
]


def atoms(formula: str) -> dict[str, int]:
    """The atoms of a formula, counted by the library."""
    dry, _, water = formula.partition("·")
    found = {symbol: int(count) for symbol, count in nested_formula_parser(dry).items()}
    molecules = int(water.removesuffix("H2O") or 1) if water else 0
    for symbol, count in (("H", 2 * molecules), ("O", molecules)):
        if count:
            found[symbol] = found.get(symbol, 0) + count
    return found


@cache
def masses() -> dict[str, Decimal]:
    """The library's atomic masses, rounded as tables have them."""
    table = fetch_table("elements")
    pairs = zip(table["symbol"], table["atomic_weight"], strict=True)
    step = Decimal("0.001")
    return {symbol: Decimal(str(mass)).quantize(step, ROUND_HALF_UP) for symbol, mass in pairs}


def molar_mass(formula: str) -> Decimal:
    """From the library's counts and masses."""
    found = atoms(formula)
    return sum((masses()[symbol] * count for symbol, count in found.items()), Decimal(0))


def value(expression: str) -> Decimal:
    text = re.sub(r"\d+(?:\.\d+)?", lambda n: f"Decimal('{n[0]}')", expression.replace("×", "*"))
    result: Decimal = eval(text, {"Decimal": Decimal})
    return result


def check(problem: Problem) -> None:
    """Every equation of a working holds, every column carries on, the last line says the answer."""
    equations = re.findall(r"(?<![\w.×+/=-])[\d.+×/-]+(?:=[\d.+×/-]+)+", problem.working)
    for equation in equations:
        sides = equation.rstrip(".").split("=")
        for left, right in pairwise(sides):
            assert value(left) == value(re.match(r"-?[\d.]+", right)[0]), equation  # type: ignore[index]
    if (
        problem.kind == "molar mass"
        and problem.compound
        and len(atoms(problem.compound.formula)) > 1
    ):
        lines = problem.working.split("\n")
        sums = [i for i, line in enumerate(lines) if line.startswith("> ")]
        assert len(sums) == len(atoms(problem.compound.formula)) - 1
        for i in sums:
            columns = lines[i - 1].split()
            assert lines[i].replace(".", "") == "> " + "".join(column[-1] for column in columns)
            assert len(columns) == 6
            carries = [int(column.split("=")[0][-1]) for column in columns]
            assert carries == [0, *(int(column[-2]) for column in columns[:-1])]
            turned = ["".join(column.split("+")[j] for column in columns) for j in (0, 1)]
            assert lines[i - 2].replace(".", "").split() == turned
    assert is_correct(problem.working, problem.answer), problem.working


def test_elements_are_the_libraries() -> None:
    """Names, numbers, groups and periods by another library than the one they come from."""
    assert len(facts().elements) == 118
    for symbol, element in facts().elements.items():
        other = periodic_table[symbol]
        assert (element.number, element.period) == (other.number, other.period)
        assert is_correct(other.name, element.name)
        assert abs(Decimal(element.mass) - Decimal(other.MW)) < Decimal("0.15") or other.MW > 200
        if element.group and element.group != 3:
            assert element.group == other.group


def test_configurations_hold_as_many_electrons_as_the_element() -> None:
    for element in facts().elements.values():
        shells = [int(n) for n in re.findall(r"\d[spdf](\d+)", element.configuration)]
        core = re.match(r"\[(\w+)\]", element.configuration)
        inner = facts().elements[core[1]].number if core else 0
        assert inner + sum(shells) == element.number


def test_compounds_have_the_atoms_that_the_library_has() -> None:
    """All molecules, and salts that the library finds by their full names."""
    compared = 0
    for compound in facts().compounds.values():
        try:
            formula = search_chemical(compound.name).formula
        except ValueError:
            continue  # known by an older name
        assert counts(compound.formula) == simple_formula_parser(formula), compound.name
        compared += 1
    assert compared > 850


def test_atoms_are_counted_as_the_library_counts() -> None:
    formulas = [compound.formula for compound in facts().compounds.values()]
    for formula in [*formulas, *sampling.TYPED.split()]:
        assert counts(formula) == atoms(formula), formula
    assert counting("(NH4)2HPO4") == "N 2, H 4×2+1=9, P 1, O 4"
    assert counting("CuSO4·5H2O") == "Cu 1, S 1, O 4+5=9, H 2×5=10"
    assert counting("CH3COOH") == "C 1+1=2, H 3+1=4, O 1+1=2"


def test_salts_are_neutral_and_named_once() -> None:
    found: dict[str, str] = {}
    for cation, anion in product(CATIONS.values(), ANIONS.values()):
        formula = salt_formula(cation, anion)
        few, many = problems.numbers(cation, anion)
        assert few * cation.charge + many * anion.charge == 0
        if anion.name != "peroxide":
            assert found.setdefault(formula, salt_name(cation, anion)) == salt_name(cation, anion)


@pytest.mark.parametrize("kind", list(sampling.MIX))
def test_workings_are_right(kind: problems.Kind) -> None:
    random = Random(5)
    for _ in range(150):
        problem = sampling.sample(random, kind)
        check(problem)
        if kind == "molar mass" and problem.compound:
            assert Decimal(problem.answer) == molar_mass(problem.compound.formula)


def test_the_checker_notices_faults() -> None:
    water = problems.molar_mass(facts().compounds["water"], "H2O")
    assert water is not None
    check(water)
    for right, wrong in (
        ("18.015 g", "18.016 g"),
        ("1+9+1=11", "1+9+1=12"),
        ("0+9+1=10", "0+9+2=11"),
        ("=002.016", "=002.017"),
    ):
        assert right in water.working
        with pytest.raises(AssertionError):
            check(replace(water, working=water.working.replace(right, wrong)))


def test_workings_as_written() -> None:
    known = facts().compounds
    water = problems.molar_mass(known["water"], "H2O")
    assert water is not None
    assert water.working == (
        "H2O\nH 1.008×2=002.016\nO=015.999\n610.200 999.510\n"
        "6+9+0=15 1+9+1=11 0+9+1=10 2+5+1=08 0+1+0=01 0+0+0=00\n"
        "> 510.810\nThe molar mass of H2O is 18.015 g/mol."
    )
    salt = known["aluminum sulfate"]
    assert problems.formula_of(salt, salt.name).working == (
        "aluminum sulfate: Al 3+ and SO4 2-, so Al2(SO4)3\n"
        "The formula of aluminum sulfate is Al2(SO4)3."
    )
    assert problems.name_of(known["iron(III) oxide"]).working == (
        "Fe2O3: O 2-, 3×2=6, 6/2=3, Fe 3+\nFe2O3 is the formula of iron(III) oxide."
    )
    mass = problems.molar_mass(salt, salt.name)
    assert mass is not None
    assert mass.working == (
        "aluminum sulfate: Al 3+ and SO4 2-, so Al2(SO4)3\nAl 2, S 3, O 4×3=12\n"
        "Al 26.982×2=053.964\n"
        "S 32.060×3=096.180\nO 15.999×12=191.988\n"
        "469.350 081.690\n4+0+0=04 6+8+0=14 9+1+1=11 3+6+1=10 5+9+1=15 0+0+1=01\n> 441.051\n"
        "441.051 889.191\n4+8+0=12 4+8+1=13 1+9+1=11 0+1+1=02 5+9+0=14 1+1+1=03\n> 231.243\n"
        "The molar mass of Al2(SO4)3 is 342.132 g/mol."
    )


@pytest.mark.parametrize(
    ("name", "symbol", "state"),
    [
        ("potassium permanganate", "Mn", "+7"),
        ("potassium dichromate", "Cr", "+6"),
        ("iron(III) sulfate", "Fe", "+3"),
        ("iron(III) sulfate", "S", "+6"),
        ("ammonium chloride", "N", "-3"),
        ("sodium hydrogen carbonate", "C", "+4"),
        ("hydrogen peroxide", "O", "-1"),
        ("sodium hydride", "H", "-1"),
        ("oxygen difluoride", "O", "+2"),
        ("sulfuric acid", "S", "+6"),
        ("water", "H", "+1"),
        ("ammonium nitrate", "N", None),
        ("sodium thiosulfate", "S", None),
        ("ethanol", "C", None),
    ],
)
def test_oxidation_states(name: str, symbol: str, state: str | None) -> None:
    problem = problems.oxidation_state(facts().compounds[name], symbol, name)
    assert (problem and problem.answer) == state


def test_oxidation_states_add_up_to_zero() -> None:
    """In every compound of the facts whose states are all known."""
    summed = 0
    for compound in facts().compounds.values():
        found = counts(compound.formula)
        states = [problems.oxidation_state(compound, s, compound.formula) for s in found]
        if all(states):
            total = sum(int(p.answer) * n for p, n in zip(states, found.values(), strict=True) if p)
            assert total == 0, compound
            summed += 1
    assert summed > 500


def test_no_example_asks_what_is_kept_for_evaluation() -> None:
    """Conversations as written are compared, not only the hashes that keep them apart."""
    asked = {tuple(m["content"] for m in q["messages"] if m["role"] == "user") for q in QUESTIONS}
    names = {c.name: c for c in facts().compounds.values() if problems.kept(c)}
    formulas = {compound.formula for compound in names.values()}
    unseen = re.compile("|".join(rf"(?<![\w()])({re.escape(f)})(?![\w(·])" for f in formulas))
    for example in islice(examples(11), 4000):
        texts = [turn.content for turn in example.turns]
        assert tuple(texts[::2]) not in asked
        assert (texts[-1],) not in asked or len(texts) > 1
        assert not unseen.search("\n".join([*texts, example.prefix, example.target])), texts


def test_shipped_questions_are_what_the_code_writes() -> None:
    assert list(questions.evaluation()) == QUESTIONS
    assert len(QUESTIONS) >= 500
    assert len({json.dumps(question["messages"]) for question in QUESTIONS}) == len(QUESTIONS)
    follow_ups = [q for q in QUESTIONS if q["operation"] == "follow-up"]
    assert len(follow_ups) >= 80
    assert all(len(question["messages"]) == 3 for question in follow_ups)
    manifest = load_manifest(questions.FOLDER)
    assert manifest.name == "chemistry"
    assert len(manifest.examples) == questions.EXAMPLES + 52
    asked = {question["messages"][-1]["content"] for question in QUESTIONS}
    assert not asked & {e.messages[-1].content for e in manifest.examples if len(e.messages) == 1}


def test_examples_are_well_formed_and_reproducible() -> None:
    first = list(islice(examples(3), 500))
    assert first == list(islice(examples(3), 500))
    assert first != list(islice(examples(4), 500))
    for example in first:
        assert example.turns[-1].role == "user"
        assert example.target
        assert not re.search("[\0\1{}]", "".join(t.content for t in example.turns) + example.target)


def test_follow_ups_need_the_question_before() -> None:
    random = Random(2)
    for _ in range(300):
        first, later, question = data.conversation(random)
        check(first)
        check(later)
        assert len(question) < 80


def test_what_does_not_exist_is_declined() -> None:
    random = Random(9)
    for _ in range(300):
        problem = sampling.unknown(random)
        assert is_correct(problem.working, "unknown")
        if problem.kind == "by number":
            assert not 0 < int(problem.x) <= 118
        assert problem.x not in facts().elements
        assert ask(problem, random)
    assert is_correct(data.BEYOND, "unknown")


def test_too_much_is_no_problem() -> None:
    assert problems.molar_mass(Compound("", "C60H120O10"), "C60H120O10") is None
    assert problems.molar_mass(Compound("", "LiBCNOF"), "LiBCNOF") is None


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("The molar mass of H2O is 18.015 g/mol.", "18.015", True),
        ("about 18.02 g/mol", "18.015", True),
        ("about 18 g/mol", "18.015", False),
        ("18.0150", "18.015", True),
        (f"18.0{'3' * 600} g/mol", "18.015", False),
        ("The molar mass of H2O is 18.016 g/mol.", "18.015", False),
        ("It is 26, as in Fe", "26", True),
        ("It is 27.", "26", False),
        ("The formula is C26H52", "26", False),
        ("manganese is +7", "+7", True),
        ("manganese is 7", "+7", True),
        ("manganese is -7", "+7", False),
        ("oxygen is −2.", "-2", True),
        ("oxygen is +2.", "-2", False),
        ("The symbol of iron is Fe.", "Fe", True),
        ("The symbol is **Fe**", "Fe", True),
        ("196.96657 g/mol", "196.967", True),
        ("196.9612 g/mol", "196.967", False),
        ("The symbol of iron is F.", "Fe", False),
        ("The symbol of iron is fe.", "Fe", False),
        ("Na₂SO₄", "Na2SO4", True),
        ("Na2SO42", "Na2SO4", False),
        ("(NH4)2SO4", "NH4", False),
        ("CuSO4 · 5H2O", "CuSO4·5H2O", True),
        ("Iron (III) Oxide", "iron(III) oxide", True),
        ("iron(II) oxide", "iron(III) oxide", False),
        ("aluminium sulphate", "aluminum sulfate", True),
        ("methane", "ethane", False),
        ("[Ar]3d6 4s2", "[Ar] 3d6 4s2", True),
        ("[Ar] 3d64s1", "[Ar] 3d6 4s2", False),
        ("It is in the d-block.", "d-block", True),
        ("The sulfate ion is SO4^2-", "SO4 2-", True),
        ("a charge of -2", "2-", True),
        ("SO4 2-: charge 2-.", "2-", True),
        ("a charge of +2", "2-", False),
        ("I know no element of that name.", "unknown", True),
        ("The symbol is Xq.", "unknown", False),
        ("", "Fe", False),
    ],
)
def test_is_correct(text: str, answer: str, correct: bool) -> None:
    assert is_correct(text, answer) is correct
