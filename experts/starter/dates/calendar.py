"""Problems about one date: its weekday, its number in the year, its ISO week, leap years."""

from __future__ import annotations

from datetime import date, timedelta

from experts.starter.arithmetic.problems import Number, divide, subtract
from experts.starter.dates.problems import (
    MONTHS,
    WEEKDAYS,
    Problem,
    checked,
    counted,
    day_of_year,
    days_before,
    days_in,
    days_in_year,
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
    steps = (checked(request, day), *weekday_steps(day))
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
    length = days_in_year(year)
    sentence = f"{year} has {length} days."
    request = f"days in {year}"
    steps = (f"{request}, {kind_of(year)}",)
    shared_out = year % 100 != 0
    return Problem("leap year", request, steps, sentence, f"{length} days", shared_out=shared_out)


def number_in_year(day: date) -> Problem:
    """The day of the year: the days before the month, and the day."""
    request = f"day of the year of {day}"
    steps = (checked(request, day), f"{day} {kind_of(day.year)} {count_in_year(day)}")
    sentence = f"{spoken(day)} is day {day_of_year(day)} of the year."
    return Problem("day of the year", request, steps, sentence, f"day {day_of_year(day)}")


def count_in_year(day: date) -> str:
    """ "060+15=075", always with three digits, so that all stand at fixed places."""
    return f"{days_before(day.year, day.month):03d}+{day.day:02d}={day_of_year(day):03d}"


def date_of_number(year: int, number: int) -> Problem:
    """The date of a day of the year."""
    day = date_in_year(year, number)
    request = f"day {number} of {year}"
    steps = (request, *find_in_year(day))
    sentence = f"Day {number} of {year} is {spoken(day)}."
    return Problem("day of the year", request, steps, sentence, str(day))


def date_in_year(year: int, number: int) -> date:
    """The date with that number in its year."""
    return date(year, 1, 1) + timedelta(days=number - 1)


def find_in_year(day: date) -> tuple[str, ...]:
    """ "2023 common 227 08:212" and 227 - 212: the month of a number in its year and the days
    before it, which are known by heart, and the day."""
    before = days_before(day.year, day.month)
    number = before + day.day
    found = f"{day.year} {kind_of(day.year)} {number:03d} {day:%m}:{before:03d}"
    return (found, *subtract(Number(number), Number(before)).inner)


def iso_week(day: date) -> Problem:
    """The ISO 8601 week: that of the week's Thursday, whose day of the year ÷ 7 is rounded up.

    The Thursday may be in another year than the day: "1964 leap 366+003-3=366" for a Sunday,
    "365+3=368 leap 368-366=002 2025" for a Monday.
    """
    request = f"ISO week of {day}"
    thursday = day + timedelta(days=THURSDAY - day.isoweekday())
    tens, ones = divmod(day_of_year(thursday), 10)
    first, rest = divmod(tens, 7)
    second, left = divmod(10 * rest + ones, 7)
    year, week, _ = day.isocalendar()
    steps = (
        checked(request, day),
        *weekday_steps(day),
        f"{day} {kind_of(day.year)} {count_in_year(day)}",
        f"{weekday(day)} {_thursday(day, thursday)}",
        f"{tens:02d}={first}×7+{rest} {rest}{ones}={second}×7+{left}"
        f" {first}{second}+{int(left > 0)}={week:02d}",
    )
    assert year == thursday.year
    sentence = f"{spoken(day)} is in ISO week {week} of {year}."
    parts = (f"weekday of {day}",)
    return Problem("ISO week", request, steps, sentence, f"{year}-W{week:02d}", parts)


def _thursday(day: date, thursday: date) -> str:
    """ "182+2=184": the number in its year of the Thursday in the week of `day`."""
    count, found = day_of_year(day), day_of_year(thursday)
    shift = f"{(thursday - day).days:+d}"
    kind = kind_of(min(day.year, thursday.year))
    length = days_in_year(min(day.year, thursday.year))
    if thursday.year < day.year:
        return f"{thursday.year} {kind} {length}+{count:03d}{shift}={found}"
    moved = count + (thursday - day).days
    text = f"{count:03d}{shift}={moved:03d}"
    if thursday.year > day.year:
        text += f" {kind} {moved}-{length}={found:03d} {thursday.year}"
    return text


def weeks_of_days(days: int) -> Problem:
    """Days as weeks and days, by long division."""
    quotient = divide(days, 7)
    weeks, rest = divmod(days, 7)
    text = counted(weeks, "week")
    if rest:
        text += f" and {counted(rest, 'day')}"
    sentence = f"{counted(days, 'day')} are {text}." if days != 1 else f"1 day is {text}."
    return Problem("between", f"{days} days in weeks", quotient.inner, sentence, text)
