"""Problems about one date: its weekday, its number in the year, its ISO week, leap years."""

from __future__ import annotations

from datetime import date, timedelta

from experts.starter.arithmetic.problems import divide
from experts.starter.dates.problems import (
    MONTHS,
    WEEKDAYS,
    Problem,
    counted,
    day_of_year,
    days_before,
    days_in,
    is_leap,
    kind_of,
    spoken,
    weekday,
)

THURSDAY = 4


def weekday_problem(day: date) -> Problem:
    """The weekday, from numbers for century, year, month and day that are added modulo 7."""
    request = f"weekday of {day}"
    sentence = f"{spoken(day)} is a {weekday(day)}."
    steps = (f"{request}, {kind_of(day.year)}", *weekday_steps(day))
    return Problem("weekday", request, steps, sentence, weekday(day))


def weekday_steps(day: date) -> tuple[str, str]:
    """The four numbers, and their sum modulo 7: 0 is Sunday."""
    century, short = divmod(day.year, 100)
    codes = [_century_code(century), _year_code(short), _month_code(day), day.day % 7]
    names = (century, short, day.month, day.day)
    table = " ".join(f"{name:02d}:{code}" for name, code in zip(names, codes, strict=True))
    total, sums = codes[0], []
    for code in codes[1:]:
        sums.append(f"{total}+{code}={(total + code) % 7}")
        total = (total + code) % 7
    assert WEEKDAYS[total] == weekday(day)
    return table, f"mod 7: {' '.join(sums)}"


def _century_code(century: int) -> int:
    """The Gregorian calendar repeats every four centuries."""
    return (6, 4, 2, 0)[century % 4]


def _year_code(short: int) -> int:
    """Every year moves the weekday on by one, every fourth by two."""
    return (short + short // 4) % 7


def _month_code(day: date) -> int:
    """How far a month begins after January's weekday; the leap day counts from March on, so
    January and February of a leap year stand one back."""
    common = (0, 3, 3, 6, 1, 4, 6, 2, 5, 0, 3, 5)[day.month - 1]
    return (common - (is_leap(day.year) and day.month < 3)) % 7


def leap_year(year: int) -> Problem:
    """Whether a year is a leap year, and why. The eight centuries are facts."""
    yes = is_leap(year)
    if year % 400 == 0:
        reason = "it is divisible by 400"
    elif year % 100 == 0:
        reason = "it is divisible by 100 but not by 400"
    else:
        reason = f"it is {'' if yes else 'not '}divisible by 4"
    verdict = "is" if yes else "is not"
    sentence = f"{'Yes' if yes else 'No'}, {year} {verdict} a leap year: {reason}."
    answer = "yes" if yes else "no"
    return Problem(
        "leap year", f"leap year {year}", (), sentence, answer, shared_out=year % 100 != 0
    )


def days_of_month(year: int, month: int) -> Problem:
    """How many days a month has."""
    request = f"days in {year}-{month:02d}"
    length = days_in(year, month)
    sentence = f"{MONTHS[month - 1]} {year} has {length} days."
    steps = (f"{request}, {kind_of(year)}",)
    shared_out = year % 100 != 0
    return Problem("leap year", request, steps, sentence, f"{length} days", shared_out=shared_out)


def days_of_year(year: int) -> Problem:
    """How many days a year has."""
    length = 366 if is_leap(year) else 365
    sentence = f"{year} has {length} days."
    request = f"days in {year}"
    steps = (f"{request}, {kind_of(year)}",)
    shared_out = year % 100 != 0
    return Problem("leap year", request, steps, sentence, f"{length} days", shared_out=shared_out)


def number_in_year(day: date) -> Problem:
    """The day of the year: the days before the month, and the day."""
    request = f"day of the year of {day}"
    steps = (f"{request}, {kind_of(day.year)}", count_in_year(day))
    sentence = f"{spoken(day)} is day {day_of_year(day)} of the year."
    return Problem("day of the year", request, steps, sentence, f"day {day_of_year(day)}")


def count_in_year(day: date) -> str:
    """ "060+15=075", always with three digits, so that all stand at fixed places."""
    return f"{days_before(day.year, day.month):03d}+{day.day:02d}={day_of_year(day):03d}"


def count_to_end_of_year(day: date) -> str:
    """ "31-03=28 214+28=242": what is left of the month, and with the months after it."""
    length = days_in(day.year, day.month)
    left = length - day.day
    year = 366 if is_leap(day.year) else 365
    after = year - days_before(day.year, day.month) - length
    return f"{length}-{day.day:02d}={left:02d} {after:03d}+{left:02d}={after + left:03d}"


def date_of_number(year: int, number: int) -> Problem:
    """The date of a day of the year: the month in which it falls, and what is left."""
    day = date(year, 1, 1) + timedelta(days=number - 1)
    request = f"day {number} of {year}"
    before = days_before(year, day.month)
    steps = (f"{request}, {kind_of(year)}", f"{day.month:02d}: {number}-{before}={day.day:02d}")
    sentence = f"Day {number} of {year} is {spoken(day)}."
    return Problem("day of the year", request, steps, sentence, str(day))


def iso_week(day: date) -> Problem:
    """The ISO 8601 week: that of the week's Thursday, whose day of the year ÷ 7 is rounded up."""
    request = f"ISO week of {day}"
    thursday = day + timedelta(days=THURSDAY - day.isoweekday())
    tens, ones = divmod(day_of_year(thursday), 10)
    first, rest = divmod(tens, 7)
    second, left = divmod(10 * rest + ones, 7)
    year, week, _ = day.isocalendar()
    steps = (
        f"{request}, {kind_of(day.year)}",
        *weekday_steps(day),
        f"{weekday(day)} {(thursday - day).days:+d}: Thursday {thursday}, {kind_of(thursday.year)}",
        count_in_year(thursday),
        f"{tens:02d}={first}×7+{rest} {rest}{ones}={second}×7+{left}"
        f" {first}{second}+{int(left > 0)}={week:02d}",
    )
    assert year == thursday.year
    sentence = f"{spoken(day)} is in ISO week {week} of {year}."
    parts = (f"weekday of {day}",)
    return Problem("ISO week", request, steps, sentence, f"{year}-W{week:02d}", parts)


def weeks_of_days(days: int) -> Problem:
    """Days as weeks and days, by long division."""
    quotient = divide(days, 7)
    weeks, rest = divmod(days, 7)
    text = counted(weeks, "week")
    if rest:
        text += f" and {counted(rest, 'day')}"
    sentence = f"{counted(days, 'day')} are {text}." if days != 1 else f"1 day is {text}."
    return Problem("between", f"{days} days in weeks", quotient.inner, sentence, text)
