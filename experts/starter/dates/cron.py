"""Problems about cron expressions; `cron-descriptor` says what they mean in English."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

from cron_descriptor import ExpressionDescriptor, Options

from experts.starter.dates.clocks import draw_hour
from experts.starter.dates.problems import Operation, Problem

STEPS = (2, 3, 5, 10, 15, 20, 30)
HOUR_STEPS = (2, 3, 4, 6, 8, 12)


@dataclass(frozen=True)
class Cron:
    """The five fields of a cron expression."""

    minute: str = "*"
    hour: str = "*"
    day: str = "*"
    month: str = "*"
    weekday: str = "*"

    def __str__(self) -> str:
        return " ".join((self.minute, self.hour, self.day, self.month, self.weekday))

    @property
    def english(self) -> str:
        """cron-descriptor's words, hours as on a 24-hour clock."""
        return describe(str(self))


@lru_cache(maxsize=10_000)
def describe(expression: str) -> str:
    """What cron-descriptor says; raises its FormatError for what is no expression."""
    options = Options()
    options.use_24hour_time_format = True
    return str(ExpressionDescriptor(expression, options).get_description())


def to_english(cron: Cron) -> Problem:
    """What an expression means."""
    return _problem("cron to English", cron, (), f"`{cron}` means: {cron.english}.", cron.english)


def to_cron(cron: Cron) -> Problem:
    """The expression for a plan: the plan in canonical English, then its five fields."""
    return _problem("English to cron", cron, (f"{cron.english}:",), f"`{cron}`", str(cron))


def _problem(
    operation: Operation, cron: Cron, steps: tuple[str, ...], sentence: str, answer: str
) -> Problem:
    """Expressions of which only one field is set are facts."""
    combined = str(cron).split().count("*") < 4
    return Problem(operation, str(cron), steps, sentence, answer, shared_out=combined)


def draw_cron(random: Random) -> Cron:
    """An expression of the forms that are taught: when in the day, and on which days."""
    return replace(_times(random), **_days(random))


def _times(random: Random) -> Cron:
    kind = random.choices(
        ("at", "twice", "steps", "hours", "every hour", "working", "minute"),
        weights=(50, 8, 12, 8, 8, 10, 2),
    )[0]
    minute = str(random.choice((0, 0, 15, 30, 45, random.randrange(60))))
    if kind == "at":
        return Cron(minute, str(draw_hour(random)))
    if kind == "twice":
        early, late = sorted(random.sample(range(24), 2))
        return Cron(minute, f"{early},{late}")
    if kind == "steps":
        return Cron(f"*/{random.choice(STEPS)}")
    if kind == "hours":
        return Cron("0", f"*/{random.choice(HOUR_STEPS)}")
    if kind == "every hour":
        return Cron(minute)
    if kind == "working":
        early = random.randrange(0, 20)
        late = random.randrange(early + 1, 24)
        first = f"*/{random.choice(STEPS)}" if random.random() < 0.6 else minute
        return Cron(first, f"{early}-{late}")
    return Cron()


def _days(random: Random) -> dict[str, str]:
    kind = random.choices(
        ("every", "weekday", "working days", "span", "list", "date", "month", "of month"),
        weights=(28, 18, 14, 6, 8, 10, 6, 10),
    )[0]
    if kind == "weekday":
        return {"weekday": str(random.randrange(7))}
    if kind == "working days":
        return {"weekday": "1-5"}
    if kind == "span":
        first = random.randrange(0, 6)
        return {"weekday": f"{first}-{random.randrange(first + 1, 7)}"}
    if kind == "list":
        return {
            "weekday": ",".join(map(str, sorted(random.sample(range(7), random.choice((2, 2, 3))))))
        }
    if kind == "date":
        return {"day": str(random.randint(1, 28)), "month": str(random.randint(1, 12))}
    if kind == "month":
        return {"month": str(random.randint(1, 12))}
    if kind == "of month":
        return {"day": str(random.choice((1, 1, 15, random.randint(1, 28))))}
    return {}
