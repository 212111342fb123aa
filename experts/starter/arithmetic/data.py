"""What the arithmetic expert is taught: questions with worked answers, follow-ups, its limits."""

from __future__ import annotations

from random import Random

from experts.starter import shapes
from experts.starter.arithmetic import sampling
from experts.starter.arithmetic.phrasing import ASKS, TERM, ask, write_expression
from experts.starter.arithmetic.problems import Number, Problem, add, divide, multiply, subtract
from experts.starter.shapes import Item, Subject

BEYOND = "That is beyond what I can compute reliably."
NOT_ARITHMETIC = "I can only help with arithmetic."
BEGUN = ("The answer is {} =", "{} =", "{} is", "{} equals", "{}:")
PLUS_FORMS = (
    "now add {}", "add {} to that", "plus {}?", "and plus {}?", "and if I add {}?", "+ {}",
    "and {} more?",
)  # fmt: skip
MINUS_FORMS = (
    "minus {}?", "now subtract {}", "and take away {}", "and minus {}?", "- {}", "less {}?",
)  # fmt: skip
TIMES_FORMS = (
    "and times {}?", "times {}", "now multiply that by {}", "multiply it by {}", "* {}",
    "what about {} times that?",
)  # fmt: skip
OVER_FORMS = (
    "divided by {}?", "now divide that by {}", "and divided by {}", "/ {}", "split that by {}",
)  # fmt: skip
NAMES = {"+": "The sum of", "-": "The difference between", "×": "The product of"}


def draw(random: Random) -> Item:
    """A question within range, and its working."""
    return _item(sampling.sample_training(random), random)


def _item(problem: Problem, random: Random) -> Item:
    written = write_expression(problem.expression, random)
    begun = [form.format(written) for form in BEGUN]
    term = TERM.fullmatch(problem.expression)
    if term and term[2] in NAMES:
        begun.append(f"{NAMES[term[2]]} {term[1]} and {term[3]} is")
    return Item(ask(problem, random), problem.working, written, tuple(begun))


def follow_up(random: Random) -> tuple[Item, Item]:
    """A question, and one that goes on from its result: "and times three?"."""
    while True:
        earlier = sampling.sample_training(random)
        if earlier.answer.isdigit() and len(earlier.answer) <= sampling.MAX_DIGITS:
            request, problem = _next_step(int(earlier.answer), random)
            if problem.for_training():
                return _item(earlier, random), Item(request, problem.working)


def _next_step(result: int, random: Random) -> tuple[str, Problem]:
    """A follow-up request on `result`, and the problem that it means."""
    number = random.randint(2, 99) if random.random() < 0.7 else random.randint(100, 9999)
    small = random.randint(2, 12) if random.random() < 0.7 else random.randint(13, 99)
    value, term = Number(result), Number(number)
    kinds: list[tuple[tuple[str, ...], int, Problem]] = [
        (PLUS_FORMS, number, add(value, term)),
        (MINUS_FORMS, number, subtract(value, term)),
    ]
    if 0 < result < 1000:
        kinds.append((TIMES_FORMS, small, multiply(result, small)))
    if small <= result < 100_000:
        kinds.append((OVER_FORMS, small, divide(result, small)))
    forms, operand, problem = random.choice(kinds)
    return random.choice(forms).format(write_expression(str(operand), random)), problem


def out_of_range(random: Random) -> Item:
    """A calculation that the expert declines."""
    return Item(random.choice(ASKS).format(sampling.out_of_range(random)), BEYOND)


SUBJECT = Subject(draw, follow_up, out_of_range, NOT_ARITHMETIC)
examples = shapes.examples(SUBJECT)
