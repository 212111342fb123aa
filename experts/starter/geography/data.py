"""What the geography expert is taught: questions about countries, follow-ups, its limits."""

from __future__ import annotations

from random import Random

from experts.starter import shapes
from experts.starter.geography import follow_ups, sampling
from experts.starter.shapes import Item, Subject

NOT_GEOGRAPHY = "I can only help with facts about countries."
LEADS = (
    "Then, what is {}?", "Also, what is {}?", "and what is {}?", "And also tell me {}.",
    "Second, name {}.", "After that, tell me {}.", "plus: what's {}", "Next, {}?", "and {}?",
    "Then please give me {}.", "And I need {}.",
)  # fmt: skip
OTHERS = (
    "what is 48 + 77?", "What is 348 times 6?", "divide 912 by 7", "how much is 15% of 80?",
    "(12 + 5) * 3", "4821 - 397", "12.5 + 7.75", "What is the product of 14 and 23?",
    "What is the molar mass of water?", "formula of sulfuric acid", "atomic number of iron",
    "which element has the symbol Au?", "what is the oxidation state of sulfur in H2SO4?",
    "molar mass of NaCl", "how heavy is a mole of CO2?", "symbol of potassium?",
    "What day of the week was July 4, 1976?", "how many days between 1 March and 9 May 2024?",
    "is 2100 a leap year?", "add three weeks to 2024-02-10", "ISO week of 2023-12-31",
    "what does the cron expression 0 5 * * 1 mean?", "weekday of 12 May 2031",
    "What time is it in Tokyo when it is noon in London?",
)  # fmt: skip
"""Questions for the other starter experts."""


def draw(random: Random) -> Item:
    """A question about a country, and its answer."""
    return sampling.sample(random).item


def follow_up(random: Random) -> tuple[Item, Item]:
    """A question, and one that only makes sense after it."""
    earlier, later = follow_ups.sample(random)
    return earlier.item, later.item


def out_of_range(random: Random) -> Item:
    """A question about a country, or a code, that does not exist."""
    while True:
        question = sampling.sample_unknown(random)
        if not question.kept:
            return question.item


SUBJECT = Subject(
    draw,
    follow_up,
    out_of_range,
    NOT_GEOGRAPHY,
    leads=LEADS,
    others=OTHERS,
    weights={"plain": 0.54, "follow_up": 0.10},
)
examples = shapes.examples(SUBJECT)
