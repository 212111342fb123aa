"""What the arithmetic expert is taught: questions with worked answers, follow-ups, its limits."""

from __future__ import annotations

from functools import partial
from random import Random

from experts.starter import shapes
from experts.starter.arithmetic import beyond, sampling
from experts.starter.arithmetic.phrasing import ASKS, TERM, ask, write_expression
from experts.starter.arithmetic.problems import Problem
from experts.starter.arithmetic.sampling import Mix
from experts.starter.shapes import Item, Subject
from experts.starter.wording import disturb

BEYOND = "That is beyond what I can compute reliably."
BY_ZERO = "Division by zero has no result."
NOT_ARITHMETIC = "I can only help with arithmetic."
BEGUN = ("The answer is {} =", "{} =", "{} is", "{} equals", "{}:")
NAMES = {"+": "The sum of", "-": "The difference between", "×": "The product of"}


def draw(random: Random, mix: Mix = sampling.MIX) -> Item:
    """A question within range, and its working."""
    return _item(sampling.sample_training(random, mix=mix), random)


def _item(problem: Problem, random: Random) -> Item:
    written = write_expression(problem.expression, random)
    begun = [form.format(written) for form in BEGUN]
    term = TERM.fullmatch(problem.expression)
    if term and term[2] in NAMES:
        begun.append(f"{NAMES[term[2]]} {term[1]} and {term[3]} is")
    return Item(ask(problem, random), problem.working, written, tuple(begun))


def follow_up(random: Random, mix: Mix = sampling.MIX) -> tuple[Item, Item]:
    """A question, and one that goes on from its result: "and times three?"."""
    earlier, request, problem = sampling.sample_follow_up(random, Problem.for_training, mix)
    return _item(earlier, random), Item(request, problem.working)


def out_of_range(random: Random) -> Item:
    """A calculation that the expert declines."""
    if random.random() < 0.06:
        return Item(
            random.choice(ASKS).format(write_expression(beyond.by_zero(random), random)), BY_ZERO
        )
    asked = random.choice(ASKS).format(beyond.out_of_range(random))
    return Item(disturb(asked, random), BEYOND)


def _subject(mix: Mix) -> Subject:
    return Subject(
        partial(draw, mix=mix),
        partial(follow_up, mix=mix),
        out_of_range,
        NOT_ARITHMETIC,
        weights={"declined": 0.1},
    )


SUBJECT = _subject(sampling.MIX)
examples = shapes.examples(_subject(sampling.TRAINING_MIX))
