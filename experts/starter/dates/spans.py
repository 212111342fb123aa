"""Problems about two dates: adding days, weeks, months or years, and the days between dates."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal

from experts.starter.arithmetic.problems import Number, add, subtract
from experts.starter.dates.calendar import count_in_year, weekday_steps
from experts.starter.dates.problems import (
    Problem,
    checked,
    counted,
    day_of_year,
    days_in,
    is_leap,
    kind_of,
    spoken,
    weekday,
)

Unit = Literal["day", "week", "month", "year"]
DAYS_IN_YEAR = 365
MOST_YEARS = 30
"""The longest span whose days are counted; its multiples of 365 are learned by heart."""


def shift(start: date, count: int, unit: Unit) -> Problem:
    """`count` units after `start`, or before it if `count` is negative.

    A month or year without such a day gives its last day. Raises ValueError or OverflowError
    beyond the years that `datetime` knows.
    """
    request = shift_request(str(start), count, unit)
    if unit == "month":
        end, steps = _by_months(start, count)
    elif unit == "year":
        end, steps = _by_years(start, count)
    else:
        end, steps = _by_days(start, count, unit)
    direction = "before" if count < 0 else "after"
    sentence = f"{counted(abs(count), unit)} {direction} {spoken(start)} is {spoken(end)}."
    return Problem("adding", request, (checked(request, start), *steps), sentence, str(end))


def shift_request(start: str, count: int, unit: Unit) -> str:
    """ "2024-03-15 - 15 days"."""
    return f"{start} {'-' if count < 0 else '+'} {counted(abs(count), unit)}"


def shifted_weekday(start: date, count: int, unit: Unit) -> Problem:
    """The weekday of a shifted date."""
    moved = shift(start, count, unit)
    end = date.fromisoformat(moved.answer)
    steps = (*moved.steps, checked(f"weekday of {end}", end), *weekday_steps(end))
    sentence = f"{moved.sentence[:-1]}, a {weekday(end)}."
    request = f"weekday of {moved.request}"
    parts = (moved.request, f"weekday of {end}")
    return Problem("adding", request, steps, sentence, weekday(end), parts)


def _by_days(start: date, count: int, unit: Unit) -> tuple[date, list[str]]:
    """Walks from month to month, taking away each month's days."""
    steps, days = [], count
    if unit == "week":
        days = 7 * count
        steps.append(f"{abs(count)}×7={abs(days)}")
    end = start + timedelta(days=days)
    steps += _forward(start, days) if days > 0 else _backward(start, -days)
    return end, steps


def _forward(start: date, days: int) -> list[str]:
    """Days counted from the beginning of the month; every month passed takes its own away."""
    year, month, left = start.year, start.month, start.day + days
    steps = [f"{start.day}+{days}={left}"]
    while left > (length := days_in(year, month)):
        steps.append(f"{month:02d}: {left}-{length}={left - length}")
        year, month, left = (*_next_month(year, month), left - length)
        if month == 1:
            steps.append(f"{year} {kind_of(year)}")
    return [*steps, f"{month:02d}: {left}"]


def _backward(start: date, days: int) -> list[str]:
    """Days still to go back from a month's end; the month that holds them gives the day."""
    if days < start.day:
        return [f"{start.month:02d}: {start.day}-{days}={start.day - days}"]
    year, month, left = start.year, start.month, days - start.day
    steps = [f"{days}-{start.day}={left}"]
    while True:
        year, month = _month_before(year, month)
        if month == 12:
            steps.append(f"{year} {kind_of(year)}")
        length = days_in(year, month)
        if left < length:
            return [*steps, f"{month:02d}: {length}-{left}={length - left}"]
        steps.append(f"{month:02d}: {left}-{length}={left - length}")
        left -= length


def _next_month(year: int, month: int) -> tuple[int, int]:
    return (year + 1, 1) if month == 12 else (year, month + 1)


def _month_before(year: int, month: int) -> tuple[int, int]:
    return (year - 1, 12) if month == 1 else (year, month - 1)


def _by_months(start: date, count: int) -> tuple[date, list[str]]:
    """Whole years and months; a month beyond 1…12 is brought back by one more year."""
    years, rest = divmod(abs(count), 12)
    sign, back = ("+", "-12") if count > 0 else ("-", "+12")
    total = start.month + (rest if count > 0 else -rest)
    more = not 1 <= total <= 12
    month = (total - 1) % 12 + 1
    year = start.year + (years + more if count > 0 else -years - more)
    steps = [
        f"{abs(count)}={years}×12+{rest}",
        f"{start.month:02d}{sign}{rest}{back if more else ''}={month:02d}",
        f"{start.year}{sign}{years}{sign}{int(more)}={year}",
    ]
    return _to_existing_day(year, month, start.day, steps)


def _by_years(start: date, count: int) -> tuple[date, list[str]]:
    """The year's number, by the arithmetic expert's sum or difference."""
    year, other = Number(start.year), Number(abs(count))
    total = add(year, other) if count > 0 else subtract(year, other)
    return _to_existing_day(start.year + count, start.month, start.day, list(total.inner))


def _to_existing_day(year: int, month: int, day: int, steps: list[str]) -> tuple[date, list[str]]:
    """The day of that number, or the month's last; the month's length goes before it."""
    length = days_in(year, month)
    end = date(year, month, min(day, length))
    return end, [*steps, f"{year} {kind_of(year)} {month:02d}: {length}, {end.day}"]


def days_between(start: date, end: date) -> Problem:
    """The days from `start` to a later `end`, at most `MOST_YEARS` years apart.

    The difference of the days' numbers in their years, to which the days of the years from the
    first up to before the last are added first.
    """
    request = f"days from {start} to {end}"
    first, last = day_of_year(start), day_of_year(end)
    years = end.year - start.year
    steps = [
        *span_steps(start, end),
        f"{start} {kind_of(start.year)} {count_in_year(start)}",
        f"{end} {kind_of(end.year)} {count_in_year(end)}",
    ]
    if years:
        passed, line = _days_of_years(start.year, end.year)
        steps += [line, *add(Number(passed), Number(last)).inner]
        last += passed
    steps += subtract(Number(last), Number(first)).inner
    days = counted((end - start).days, "day")
    sentence = f"From {spoken(start)} to {spoken(end)} it is {days}."
    return Problem("between", request, tuple(steps), sentence, days)


def span_steps(start: date, end: date) -> tuple[str, str]:
    """The first two lines of a span's working: the request, and the years between."""
    request = checked(f"days from {start} to {end}", start, end)
    return request, f"{end.year}-{start.year}={end.year - start.year}"


def _days_of_years(first: int, last: int) -> tuple[int, str]:
    """The days of the years from `first` up to before `last`, and how they are counted."""
    count = last - first
    leaps = [year for year in range(first, last) if is_leap(year)]
    listed = " ".join(map(str, leaps)) or "none"
    common = DAYS_IN_YEAR * count
    days = common + len(leaps)
    line = f"{count}×{DAYS_IN_YEAR}={common} leap {listed}"
    return days, f"{line} {common}+{len(leaps)}={days}"
