"""Random problems within the dates expert's range, each with what a question has to say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from random import Random

from experts.starter.dates import calendar, cron, plans
from experts.starter.dates.clocks import Zone, conversion, draw_hour, offset_of
from experts.starter.dates.cron import Cron, draw_cron
from experts.starter.dates.facts import fixed_zones, write_offset
from experts.starter.dates.phrasing import Case, ordinal, write_clock, write_count, write_zone
from experts.starter.dates.problems import FIRST_YEAR, LAST_YEAR, MONTHS, Operation, days_in
from experts.starter.dates.spans import MOST_YEARS, Unit, days_between, shift, shifted_weekday

MIX: dict[Operation, float] = {
    "weekday": 0.06,
    "leap year": 0.03,
    "day of the year": 0.1,
    "ISO week": 0.07,
    "adding": 0.22,
    "between": 0.15,
    "time zone": 0.24,
    "cron to English": 0.05,
    "English to cron": 0.08,
}
"""Shares of the operations in training."""
MOST: dict[Unit, int] = {"day": 400, "week": 60, "month": 36, "year": 100}
"""The longest way that a date is moved."""
OFFSETS = (0, 30, 45)
FAMILIAR = ("UTC", "GMT", "CET", "CEST", "EST", "EDT", "MST", "PDT", "JST", "Tokyo", "Singapore")
"""Zones that people ask for more often than the others."""


def sample_training(random: Random, operation: Operation | None = None) -> Case:
    """A case that training may contain; its operation is drawn from `MIX` unless given."""
    while True:
        case = sample(random, operation)
        if case.problem.for_training:
            return case


def sample_evaluation(random: Random, operation: Operation) -> Case:
    """A case whose problem no training example contains."""
    while True:
        case = sample(random, operation)
        if case.problem.for_evaluation:
            return case


def sample(random: Random, operation: Operation | None = None) -> Case:
    """Any case within range."""
    operation = operation or random.choices(list(MIX), weights=list(MIX.values()))[0]
    return _SAMPLERS[operation](random)


def draw_year(random: Random) -> int:
    """Mostly years of our time; now and then the end of a century."""
    chance = random.random()
    if chance < 0.55:
        return random.randint(1950, 2050)
    if chance < 0.75:
        return random.randint(1900, 2100)
    if chance < 0.8:
        return min(LAST_YEAR, 100 * random.randint(16, 24) + random.choice((-1, 0, 0, 1)))
    return random.randint(FIRST_YEAR, LAST_YEAR)


def draw_day(random: Random) -> date:
    """A date; the ends of months and years, and the leap day, more often than others."""
    year = draw_year(random)
    chance = random.random()
    if chance < 0.06:
        return date(year, 1, random.randint(1, 4))
    if chance < 0.12:
        return date(year, 12, random.randint(28, 31))
    if chance < 0.15:
        return date(year, 2, days_in(year, 2))
    month = random.randint(1, 12)
    length = days_in(year, month)
    if chance < 0.23:
        return date(year, month, random.choice((1, 2, length - 1, length)))
    return date(year, month, random.randint(1, length))


def weekday(day: date) -> Case:
    return Case(calendar.weekday_problem(day), "weekday", {"day": day})


def iso_week(day: date) -> Case:
    return Case(calendar.iso_week(day), "ISO week", {"day": day})


def number_in_year(day: date) -> Case:
    return Case(calendar.number_in_year(day), "day of the year", {"day": day})


def leap_year(year: int) -> Case:
    return Case(calendar.leap_year(year), "leap year", {"year": str(year)})


def between(start: date, end: date) -> Case:
    return Case(days_between(start, end), "between", {"start": start, "end": end})


def days_in_weeks(days: int) -> Case:
    return Case(calendar.weeks_of_days(days), "days in weeks", {"days": str(days)})


def shifted(start: date, count: int, unit: Unit, random: Random) -> Case:
    """`count` units after a date, or before it."""
    fields: dict[str, str | date] = {"day": start, "count": write_count(abs(count), unit, random)}
    return Case(shift(start, count, unit), "before" if count < 0 else "after", fields)


def time_zone(minutes: int, source: Zone, target: Zone, random: Random) -> Case | None:
    """A conversion, or None where the two days are more than one apart."""
    problem = conversion(minutes, source, target)
    if problem is None:
        return None
    to = write_zone(target, random)
    fields: dict[str, str | date] = {
        "here": source.after(write_clock(minutes, random)).replace(
            source.name, write_zone(source, random)
        ),
        "to": to,
        "there": f"in {to}",
    }
    return Case(problem, "time zone", fields)


def to_english(expression: Cron, random: Random) -> Case:
    quote = random.choice(("", "", "`", '"', "'"))
    fields: dict[str, str | date] = {"cron": f"{quote}{expression}{quote}"}
    return Case(cron.to_english(expression), "cron to English", fields)


def to_cron(expression: Cron, random: Random) -> Case:
    fields: dict[str, str | date] = {"plan": plans.write_plan(expression, random)}
    return Case(cron.to_cron(expression), "English to cron", fields)


def draw_shift(random: Random) -> tuple[int, Unit]:
    """How far a date is moved: mostly not far, and mostly ahead."""
    unit: Unit = random.choices(("day", "week", "month", "year"), weights=(42, 19, 27, 12))[0]
    chance = random.random()
    if chance < 0.5:
        most = {"day": 40, "week": 8, "month": 12, "year": 10}[unit]
    elif chance < 0.85:
        most = {"day": 120, "week": 20, "month": 24, "year": 40}[unit]
    else:
        most = MOST[unit]
    count = random.randint(1, most)
    return (-count if random.random() < 0.35 else count), unit


def draw_start(random: Random) -> date:
    """A date that is followed by a year within range."""
    day = draw_day(random)
    return day if day.year < LAST_YEAR else day.replace(year=LAST_YEAR - 1)


def draw_later(start: date, random: Random) -> date:
    """A date after `start`: half of them in the same year, few of them many years later."""
    chance = random.random()
    year = start.year
    if chance > 0.85:
        year += random.randint(2, MOST_YEARS)
    elif chance > 0.5:
        year += 1
    while True:
        end = draw_day(random).replace(day=random.randint(1, 28), year=min(year, LAST_YEAR))
        if end > start:
            return end
        year += start.month == 12 and start.year == year  # hardly any day is left


def draw_zone(random: Random) -> Zone:
    """A place or an abbreviation, an offset, or one of the zones that are asked for most."""
    chance = random.random()
    if chance < 0.2:
        return Zone(random.choice(FAMILIAR))
    if chance < 0.38:
        hours = random.randint(-11, 13)
        return Zone(write_offset(60 * hours + random.choices(OFFSETS, weights=(7, 2, 1))[0]))
    return Zone(random.choice(list(fixed_zones())))


def _leap_year(random: Random) -> Case:
    year = draw_year(random)
    chance = random.random()
    if chance < 0.6:
        return leap_year(year)
    if chance < 0.75:
        return Case(calendar.days_of_year(year), "days of year", {"year": str(year)})
    month = 2 if random.random() < 0.5 else random.randint(1, 12)
    fields: dict[str, str | date] = {"month": MONTHS[month - 1], "year": str(year)}
    return Case(calendar.days_of_month(year, month), "days of month", fields)


def _day_of_year(random: Random) -> Case:
    if random.random() < 0.6:
        return number_in_year(draw_day(random))
    year, number = draw_year(random), random.randint(1, 365)
    fields: dict[str, str | date] = {
        "number": str(number), "ordinal": ordinal(number), "year": str(year)
    }  # fmt: skip
    return Case(calendar.date_of_number(year, number), "date of number", fields)


def _adding(random: Random) -> Case:
    while True:
        start, (count, unit) = draw_day(random), draw_shift(random)
        if not FIRST_YEAR + 102 < start.year < LAST_YEAR - 102:
            continue
        if abs(count) <= 60 and unit in ("day", "week") and random.random() < 0.12:
            fields: dict[str, str | date] = {
                "day": start, "count": write_count(abs(count), unit, random)
            }  # fmt: skip
            return Case(shifted_weekday(start, abs(count), unit), "weekday after", fields)
        return shifted(start, count, unit, random)


def _between(random: Random) -> Case:
    if random.random() < 0.1:
        return days_in_weeks(random.randint(8, 999))
    start = draw_start(random)
    return between(start, draw_later(start, random))


def _time_zone(random: Random) -> Case:
    if random.random() < 0.5:
        zone = Zone(random.choice(list(fixed_zones())))
        return Case(offset_of(zone), "offset of", {"zone": zone.name})
    while True:
        minutes = 60 * draw_hour(random) + random.randrange(60)
        if random.random() < 0.6:
            minutes -= minutes % 15
        source, target = draw_zone(random), draw_zone(random)
        if source != target and (case := time_zone(minutes, source, target, random)):
            return case


_SAMPLERS: dict[Operation, Callable[[Random], Case]] = {
    "weekday": lambda random: weekday(draw_day(random)),
    "leap year": _leap_year,
    "day of the year": _day_of_year,
    "ISO week": lambda random: iso_week(draw_day(random)),
    "adding": _adding,
    "between": _between,
    "time zone": _time_zone,
    "cron to English": lambda random: to_english(draw_cron(random), random),
    "English to cron": lambda random: to_cron(draw_cron(random), random),
}
