"""Questions about dates that make sense only after the one before: "and two weeks later?"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from random import Random

from experts.starter.dates import plans, sampling
from experts.starter.dates.clocks import DAY
from experts.starter.dates.cron import Cron, draw_cron, to_cron
from experts.starter.dates.phrasing import (
    Case,
    write_clock,
    write_count,
    write_date,
    write_zone,
)
from experts.starter.dates.problems import Problem
from experts.starter.dates.spans import Unit, shift, shifted_weekday
from experts.starter.wording import disturb

AGAIN = (
    "and {}?", "what about {}", "What about {}?", "and for {}?", "now {}", "{}?", "And {}?",
    "how about {}?", "same for {}",
)  # fmt: skip
PROPERTIES: dict[str, tuple[str, ...]] = {
    "weekday": (
        "and what weekday is that?", "which day of the week is it?", "And the weekday?",
        "what weekday is it", "on which weekday does that fall?", "is that a Monday or what?",
    ),
    "day of the year": (
        "and which day of the year?", "what day of the year is that?", "And its day number?",
        "which number in the year is that day",
    ),
    "ISO week": (
        "and which ISO week is it in?", "what week number is that", "And the week number?",
        "which calendar week?", "and its ISO week?",
    ),
    "leap year": ("is that a leap year?", "And is it a leap year?", "was that a leap year"),
}  # fmt: skip
LATER = (
    "and {} later?", "and {} after that?", "{} later?", "what about {} later", "And {} after that?",
    "add another {}", "plus {}?", "now add {}",
)  # fmt: skip
EARLIER = (
    "and {} before that?", "{} earlier?", "and {} earlier", "minus {}?", "now go back {}",
    "And {} before that?",
)  # fmt: skip
IN_WEEKS = (
    "and in weeks?", "how many weeks is that?", "In weeks?", "what is that in weeks and days?",
)  # fmt: skip
UNTIL = ("and to {}?", "and until {}?", "What about until {}?", "and up to {}", "to {} instead?")
ELSEWHERE = (
    "and in {}?", "what about {}", "and {} time?", "In {}?", "And in {}?", "and for someone in {}?",
)  # fmt: skip
DIFFERENTLY = (
    "and {}?", "make it {}", "{} instead", "now {}", "What if it should run {}?", "only {} please",
)  # fmt: skip
KINDS: dict[str, Callable[[date], Case]] = {
    "weekday": sampling.weekday,
    "day of the year": sampling.number_in_year,
    "ISO week": sampling.iso_week,
    "leap year": lambda day: sampling.leap_year(day.year),
}

Pair = tuple[Case, str, Problem]
"""The case of the first question, the later question, and the problem that it means."""


def draw_pair(random: Random) -> Pair:
    """Any question with one that follows it; typing accidents included."""
    kind = random.choices(list(_PAIRS), weights=list(_PAIRS.values()))[0]
    case, question, problem = kind(random)
    return case, disturb(question, random), problem


def _another_date(random: Random) -> Pair:
    kind = random.choice(list(KINDS))
    day = sampling.draw_day(random)
    asked = str(day.year) if kind == "leap year" else write_date(day, random)
    question = random.choice(AGAIN).format(asked)
    return KINDS[kind](sampling.draw_day(random)), question, KINDS[kind](day).problem


def _same_date(random: Random) -> Pair:
    """Another question about the date of the question before."""
    first, second = random.sample(list(PROPERTIES), 2)
    if first == "leap year":
        first, second = second, first
    day = sampling.draw_day(random)
    question = random.choice(PROPERTIES[second])
    return KINDS[first](day), question, KINDS[second](day).problem


def _after_shift(random: Random) -> Pair:
    """A question about the date that was found, or a step on from it."""
    case = sampling.sample_training(random, "adding")
    while case.form == "weekday after":
        case = sampling.sample_training(random, "adding")
    found = date.fromisoformat(case.problem.answer)
    if random.random() < 0.5:
        kind = random.choice(list(PROPERTIES))
        return case, random.choice(PROPERTIES[kind]), KINDS[kind](found).problem
    count, unit = sampling.draw_shift(random)
    form = random.choice(EARLIER if count < 0 else LATER)
    question = form.format(write_count(abs(count), unit, random))
    return case, question, shift(found, count, unit)


def _weekday_later(random: Random) -> Pair:
    """The weekday some days or weeks after the date that was asked about."""
    case = sampling.sample_training(random, "weekday")
    start = case.fields["day"]
    assert isinstance(start, date)
    unit: Unit = random.choice(("day", "week"))
    count = random.randint(1, 40 if unit == "day" else 10)
    question = random.choice(LATER).format(write_count(count, unit, random))
    return case, question, shifted_weekday(start, count, unit)


def _between(random: Random) -> Pair:
    """The same span in weeks, or a span from the same day to another."""
    start = sampling.draw_start(random)
    case = sampling.between(start, sampling.draw_later(start, random))
    if random.random() < 0.4:
        days = int(case.problem.answer.split()[0])
        return case, random.choice(IN_WEEKS), sampling.days_in_weeks(days).problem
    end = sampling.draw_later(start, random)
    question = random.choice(UNTIL).format(write_date(end, random))
    return case, question, sampling.between(start, end).problem


def _elsewhere(random: Random) -> Pair:
    """The same time in another zone."""
    while True:
        minutes = 15 * random.randrange(DAY // 15)
        source, first, second = (sampling.draw_zone(random) for _ in range(3))
        if len({source, first, second}) < 3:
            continue
        case = sampling.time_zone(minutes, source, first, random)
        later = sampling.time_zone(minutes, source, second, random)
        if case and later:
            question = random.choice(ELSEWHERE).format(write_zone(second, random))
            return case, question, later.problem


def _another_plan(random: Random) -> Pair:
    """The same time on other days, the same days at another time, or another expression."""
    if random.random() < 0.3:
        cases = [sampling.to_english(draw_cron(random), random) for _ in range(2)]
        question = random.choice(AGAIN).format(cases[1].fields["cron"])
        return cases[0], question, cases[1].problem
    first = replace(draw_cron(random), minute=str(5 * random.randrange(12)),
                    hour=str(random.randrange(24)))  # fmt: skip
    case = sampling.to_cron(first, random)
    if random.random() < 0.5:
        hour, minute = random.randrange(24), 5 * random.randrange(12)
        question = f"at {write_clock(60 * hour + minute, random)}"
        later = replace(first, minute=str(minute), hour=str(hour))
    else:
        weekday = random.choice(("1-5", *map(str, range(7))))
        later = Cron(first.minute, first.hour, weekday=weekday)
        question = plans.write_days(later, random)
    return case, random.choice(DIFFERENTLY).format(question), to_cron(later)


_PAIRS: dict[Callable[[Random], Pair], float] = {
    _another_date: 0.2,
    _same_date: 0.15,
    _after_shift: 0.2,
    _weekday_later: 0.1,
    _between: 0.12,
    _elsewhere: 0.12,
    _another_plan: 0.11,
}
