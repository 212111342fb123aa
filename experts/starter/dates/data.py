"""What the dates expert is taught: questions with worked answers, follow-ups, its limits."""

from __future__ import annotations

from random import Random

from experts.starter import shapes
from experts.starter.dates import limits, sampling
from experts.starter.dates.follow_ups import draw_pair
from experts.starter.shapes import Item, Subject

NOT_DATES = "I can only help with dates, times and cron expressions."
LEADS = (
    "Then tell me {}.", "Then, what is {}?", "Also, what is {}?", "and what is {}?", "Then {}.",
    "After that, find {}.", "Second, {}.", "And also tell me {}.", "Next, {}?", "plus: what's {}",
    "Then please work out {}.", "And give me {}.",
)  # fmt: skip
OTHERS = (
    "What is 4821 + 397?", "what is 12 × 48", "347 divided by 23", "15% of 260", "2024 - 1987",
    "What is 20.5 plus 3.75?", "How much is 365 times 24?", "What is the capital of Peru?",
    "capital of Kenya", "which country uses the forint?", "Which currency does Japan use?",
    "What is the calling code of Tokyo?", "What is the molar mass of H2O?", "atomic number of iron",
    "what is the formula of table salt", "oxidation state of sulfur in H2SO4",
    "who lives in Lagos?", "Who was born in 1879?", "What happened in 1989?", "tell me of Moscow",
)  # fmt: skip


def draw(random: Random) -> Item:
    """A question within range, and its working."""
    return sampling.sample_training(random).item(random)


def follow_up(random: Random) -> tuple[Item, Item]:
    """A question, and one that goes on from it."""
    while True:
        case, question, problem = draw_pair(random)
        if case.problem.for_training and problem.for_training:
            return case.item(random), Item(question, problem.working)


def out_of_range(random: Random) -> Item:
    """A question that is declined."""
    while True:
        item = limits.out_of_range(random)
        if not limits.for_evaluation(item):
            return item


SUBJECT = Subject(
    draw,
    follow_up,
    out_of_range,
    NOT_DATES,
    leads=LEADS,
    others=OTHERS,
    weights={"plain": 0.5, "follow_up": 0.09, "declined": 0.16},
)
examples = shapes.examples(SUBJECT)
