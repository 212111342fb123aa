"""Problems about two dates: adding days, weeks, months or years, and the days between dates."""

from __future__ import annotations

from datetime import date
from typing import Literal

from experts.starter.arithmetic.problems import Number, add, subtract
from experts.starter.dates.calendar import (
    count_in_year,
    date_in_year,
    find_in_year,
    weekday_steps,
)
from experts.starter.dates.problems import (
    Problem,
    checked,
    counted,
    day_of_year,
    days_in,
    days_in_year,
    is_leap,
    kind_of,
    spoken,
    weekday,
    within,
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
    """Through the day's number in its year: days are added or taken away, and as long as the
    result is not in the year, the year's length is taken away or the year before's added."""
    steps, days, year = [], abs(count), start.year
    if unit == "week":
        days *= 7
        steps.append(f"{abs(count)}×7={days}")
    number = day_of_year(start)
    steps.append(f"{start} {kind_of(year)} {count_in_year(start)}")
    if count > 0:
        steps += add(Number(number), Number(days)).inner
        number += days
        while number > (length := days_in_year(year)):
            steps.append(f"{year} {kind_of(year)} {number}, over")
            steps += subtract(Number(number), Number(length)).inner
            year, number = year + 1, number - length
    else:
        steps += subtract(Number(number), Number(days)).inner
        number -= days
        while number < 1:
            year -= 1
            length = days_in_year(year)
            steps.append(f"{year} {kind_of(year)}")
            steps += subtract(Number(length), Number(-number)).inner
            number += length
    end = date_in_year(year, number)
    return end, [*steps, *find_in_year(end)]


def _by_months(start: date, count: int) -> tuple[date, list[str]]:
    """Whole years and months; a month beyond 1…12 is brought back by one more year."""
    years, rest = divmod(abs(count), 12)
    sign, back, way = ("+", "-12", 1) if count > 0 else ("-", "+12", -1)
    total = start.month + way * rest
    more = int(not 1 <= total <= 12)
    month = (total - 1) % 12 + 1
    line = f"{start.month:02d}{sign}{rest:02d}={total:02d}"
    passed = years + more
    steps = [
        f"{abs(count)}={years}×12+{rest}",
        f"{line} {back}={month:02d}" if more else line,
        f"{years}+{more}={passed}",
        *(_move_year(start.year, way * passed) if passed else ()),
    ]
    return _to_existing_day(start.year + way * passed, month, start.day, steps)


def _by_years(start: date, count: int) -> tuple[date, list[str]]:
    steps = list(_move_year(start.year, count))
    return _to_existing_day(start.year + count, start.month, start.day, steps)


def _move_year(year: int, count: int) -> tuple[str, ...]:
    """The year `count` years after `year`, by the arithmetic expert's sum or difference."""
    moved = subtract if count < 0 else add
    return moved(Number(year), Number(abs(count))).inner


def _to_existing_day(year: int, month: int, day: int, steps: list[str]) -> tuple[date, list[str]]:
    """The day of that number, or the month's last; the month's length goes before it."""
    end = date(year, month, min(day, days_in(year, month)))
    return end, [*steps, f"{year} {kind_of(year)} {month:02d}: {within(year, month, day)} {end:%d}"]


def days_between(start: date, end: date) -> Problem:
    """The days from `start` to a later `end`, at most `MOST_YEARS` years apart.

    The difference of the days' numbers in their years, to which the days of the years from the
    first up to before the last are added first.
    """
    request = f"days from {start} to {end}"
    first, last = day_of_year(start), day_of_year(end)
    steps = [
        checked(request, start, end),
        *count_years(start.year, end.year),
        f"{start} {kind_of(start.year)} {count_in_year(start)}",
        f"{end} {kind_of(end.year)} {count_in_year(end)}",
    ]
    if years := end.year - start.year:
        common = DAYS_IN_YEAR * years
        leaps = _leaps(start.year, end.year)
        steps.append(_count_leaps(start.year, end.year))
        steps.append(f"{years}×{DAYS_IN_YEAR}={common} {common}+{leaps}={common + leaps}")
        steps += add(Number(common + leaps), Number(last)).inner
        last += common + leaps
    steps += subtract(Number(last), Number(first)).inner
    days = counted((end - start).days, "day")
    sentence = f"From {spoken(start)} to {spoken(end)} it is {days}."
    return Problem("between", request, tuple(steps), sentence, days)


def count_years(first: int, last: int) -> tuple[str, ...]:
    """The years from `first` to `last`, by the arithmetic expert's difference."""
    return subtract(Number(last), Number(first)).inner


def _count_leaps(first: int, last: int) -> str:
    """ "leaps 60:15 75:19 19-15=4": for the last two digits of each year the years divisible by 4
    before it in its century, known by heart, and their difference. "leaps 92:23 06:2 25-23+2=4":
    in another century, 25 for the whole first one. One less where that counts a year such as 1900:
    "leaps 98:25 04:1 25-25+1-1=0"."""
    (century, first_short), (later, last_short) = divmod(first, 100), divmod(last, 100)
    before = [(short + 3) // 4 for short in (first_short, last_short)]
    text = f"{before[1]}-{before[0]}" if century == later else f"25-{before[0]}+{before[1]}"
    whole = 100 * later
    if not is_leap(whole) and first <= whole < last:
        text += "-1"
    left, right = f"{first_short:02d}:{before[0]}", f"{last_short:02d}:{before[1]}"
    return f"leaps {left} {right} {text}={_leaps(first, last)}"


def _leaps(first: int, last: int) -> int:
    """The leap years from `first` up to before `last`."""
    return sum(map(is_leap, range(first, last)))
