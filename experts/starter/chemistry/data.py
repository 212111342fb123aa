"""What the chemistry expert is taught: questions with answers, follow-ups, its limits."""

from __future__ import annotations

import zlib
from random import Random

from experts.starter import shapes
from experts.starter.chemistry import problems, sampling
from experts.starter.chemistry.formulas import counts
from experts.starter.chemistry.phrasing import (
    ASKS,
    FRAMES,
    LEADS,
    NOUNS,
    OF_ELEMENT,
    ask,
    noun,
    typed,
)
from experts.starter.chemistry.problems import Kind, Problem
from experts.starter.shapes import Item, Subject
from experts.starter.wording import disturb

BEYOND = "That is beyond the chemistry that I know."
NOT_CHEMISTRY = "I can only help with chemistry."
WORDING_SHARE = 40
"""One wording of a question in this many is kept for evaluation."""
BEGUN: dict[Kind, tuple[str, ...]] = {
    "molar mass": ("The molar mass of {x} is", "The molar mass of {x} is:", "{x}:"),
    "formula": ("The chemical formula of {x} is", "{x}:"),
    "name": ("{x} is", "The compound {x} is"),
    "oxidation": ("The oxidation state of {x} in {y} is", "In {y}, {x} has the oxidation state"),
}
"""What another model may have begun to say before the working."""
SAME_FORMS = (
    "and of {}?", "and {}?", "what about {}?", "and for {}?", "{}?", "and {}", "now {}",
    "the same for {}", "what about {}", "And what about {}?", "And for {}?", "how about {}?",
    "and that of {}?", "now for {} please",
)  # fmt: skip
"""The same question about something else."""
ITS_FORMS = ("and its {}?", "its {}?", "And what is its {}?", "what's its {}", "and the {}?")
"""Something else about the same element or compound."""
ITS: dict[Kind, tuple[str, ...]] = {
    "symbol": ("symbol", "chemical symbol"),
    "number": ("atomic number", "proton number"),
    "mass": ("atomic mass", "atomic weight"),
    "group": ("group", "group number"),
    "period": ("period",),
    "block": ("block",),
    "electronegativity": ("electronegativity",),
    "configuration": ("electron configuration", "configuration"),
    "formula": ("formula", "chemical formula"),
    "molar mass": ("molar mass", "molecular weight", "molecular mass"),
}
OTHERS = (
    "what is 4821 + 3977?", "12 × 34", "how much is 15% of 80?", "what is 1234 divided by 5",
    "what is the capital of Peru?", "Which country uses the forint?", "capital of Japan?",
    "what is the calling code of France", "Which countries border Austria?", "currency of Brazil",
    "what weekday was 4 July 1976?", "how many days between 1 May and 9 June 2024?",
    "is 2024 a leap year?", "what does the cron expression 0 5 * * 1 mean", "add 3 weeks to today",
    "square root of 144", "multiply 23 by 19", "what time zone is Tokyo in?",
)  # fmt: skip


def draw(random: Random) -> Item:
    """A question within range, in a wording that is not kept for evaluation, and its answer."""
    problem = sampling.sample_training(random)
    while kept_wording((item := item_of(problem, random)).question):
        pass
    return item


def item_of(problem: Problem, random: Random) -> Item:
    """A problem as a question and an answer."""
    x, y = typed(problem.x, random), typed(problem.y, random)
    begun = tuple(form.format(x=x, y=y) for form in BEGUN.get(problem.kind, ()))
    return Item(ask(problem, random), problem.working, noun(problem, random), begun)


def kept_wording(*questions: str) -> bool:
    """Whether the wording of a question, or of two in a row, is kept for evaluation, by a hash."""
    return zlib.crc32("\n".join(questions).encode()) % WORDING_SHARE == 0


def follow_up(random: Random) -> tuple[Item, Item]:
    """A question, and a later one that only makes sense after it; nothing kept for evaluation."""
    while True:
        first, later, question = conversation(random)
        earlier = item_of(first, random)
        kept = first.for_evaluation() or later.for_evaluation()
        if not kept and not kept_wording(earlier.question, question):
            return earlier, Item(question, later.working)


def conversation(random: Random) -> tuple[Problem, Problem, str]:
    """A problem, a later one, and the words that ask for it after the first is answered."""
    while True:
        turn = random.choice((_same_again, _same_again, _its_property, _its_mass, _state_in_it))
        if (found := turn(random)) is not None:
            return found


def _same_again(random: Random) -> tuple[Problem, Problem, str] | None:
    """ "What is the symbol of iron?" "and of copper?" """
    kind = sampling.sample(random).kind
    earlier, later = sampling.sample(random, kind), sampling.sample(random, kind)
    if earlier.x == later.x or kind == "place":
        return None
    if kind == "oxidation":
        if earlier.compound is None or later.x != earlier.x:
            return None
        return earlier, later, f"and in {typed(later.y, random)}?"
    return earlier, later, random.choice(SAME_FORMS).format(typed(later.x, random))


def _its_property(random: Random) -> tuple[Problem, Problem, str]:
    """ "Which element has the atomic number 26?" "and its electronegativity?" """
    element = sampling.element(random)
    first: tuple[Kind, ...] = ("symbol", "element", *OF_ELEMENT)
    kind = random.choice((*first, "by number"))
    earlier = (
        problems.element_by(kind, element)
        if kind == "by number"
        else problems.property_of(
            kind, element, element.symbol if kind == "element" else element.name
        )
    )
    wanted: Kind = random.choice([k for k in ITS if k in first and k != kind])
    later = problems.property_of(wanted, element, element.name)
    return earlier, later, _its(wanted, random)


def _its_mass(random: Random) -> tuple[Problem, Problem, str] | None:
    """ "What is the formula of potash?" "and its molar mass?" """
    earlier = sampling.sample(random, random.choice(("formula", "name")))
    compound = earlier.compound
    assert compound is not None
    later = problems.molar_mass(compound, compound.formula)
    return (earlier, later, _its("molar mass", random)) if later else None


def _state_in_it(random: Random) -> tuple[Problem, Problem, str] | None:
    """ "Formula of potassium permanganate?" "and the oxidation state of manganese in it?" """
    earlier = sampling.sample(random, random.choice(("formula", "molar mass", "oxidation")))
    compound = earlier.compound
    if compound is None or not compound.name:
        return None
    symbol = random.choice(list(counts(compound.formula)))
    later = problems.oxidation_state(compound, symbol, compound.formula)
    if later is None or later.answer == earlier.answer:
        return None
    forms: tuple[str, ...] = (
        "and the oxidation state of {} in it?",
        "what's the oxidation state of {} there?",
    )
    if earlier.kind == "oxidation":
        forms = ("and that of {}?", "and {}?", "and the {}?", "and {} in it?")
    return earlier, later, random.choice(forms).format(later.x)


def _its(kind: Kind, random: Random) -> str:
    return random.choice(ITS_FORMS).format(random.choice(ITS[kind]))


def out_of_range(random: Random) -> Item:
    """What does not exist, or is too heavy, or nothing that the expert knows of a substance."""
    while kept_wording((item := _out_of_range(random)).question):
        pass
    return item


def _out_of_range(random: Random) -> Item:
    if random.random() < 0.6:
        return item_of(sampling.unknown(random), random)
    return beyond(random)


def beyond(random: Random) -> Item:
    """A question about what there is, but the expert does not know, and what it says."""
    chance = random.random()
    if chance < 0.15:
        metal, formula, answer = sampling.uneven(random)
        asked = random.choice((*NOUNS["oxidation"], *ASKS["oxidation"])).format(x=metal, y=formula)
        return Item(disturb(asked, random), answer)
    if chance < 0.55:
        return Item(disturb(sampling.beyond_question(random), random), BEYOND)
    return Item(random.choice(FRAMES).format(sampling.beyond(random)), BEYOND)


SUBJECT = Subject(
    draw,
    follow_up,
    out_of_range,
    NOT_CHEMISTRY,
    leads=LEADS,
    others=OTHERS,
    weights={"declined": 0.13, "follow_up": 0.08},
)
examples = shapes.examples(SUBJECT)
