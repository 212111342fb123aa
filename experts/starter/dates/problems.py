"""A problem about dates with its worked answer, and the tables that the workings look up.

The tables are small on purpose: a model of 3 million weights learns each by heart, and every step
of a working is one look-up or one small sum. Longer sums are written as the arithmetic expert
writes them. Python's `datetime` gives every result; tests recompute each step.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import date
from typing import Literal

Operation = Literal[
    "weekday",
    "leap year",
    "day of the year",
    "ISO week",
    "adding",
    "between",
    "time zone",
    "cron to English",
    "English to cron",
]
FIRST_YEAR, LAST_YEAR = 1600, 2399
WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
"""By their remainder modulo 7."""
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
EVALUATION_SHARE = 50
"""One problem in this many is kept for evaluation."""


@dataclass(frozen=True)
class Problem:
    """One problem: `request` is the canonical question and the working's first line.

    `answer` is what the evaluation compares, `sentence` the last line, `parts` the requests of
    problems that the working contains. A problem of which there are so few that each is a fact is
    not `shared_out`: training has all of them.
    """

    operation: Operation
    request: str
    steps: tuple[str, ...]
    sentence: str
    answer: str
    parts: tuple[str, ...] = ()
    shared_out: bool = True

    @property
    def working(self) -> str:
        """The whole answer."""
        return "\n".join([*self.steps, self.sentence])

    @property
    def for_evaluation(self) -> bool:
        """Whether the problem is kept for evaluation, by a hash of its request."""
        return self.shared_out and _is_kept(self.request)

    @property
    def for_training(self) -> bool:
        """Whether training may contain it: neither it nor a part is kept for evaluation."""
        return not self.for_evaluation and not any(map(_is_kept, self.parts))


def _is_kept(request: str) -> bool:
    return zlib.crc32(request.encode()) % EVALUATION_SHARE == 0


def is_leap(year: int) -> bool:
    """Whether a Gregorian year has 366 days."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def kind_of(year: int) -> str:
    """ "leap" or "common": the workings say it beside every year whose months are looked up."""
    return "leap" if is_leap(year) else "common"


def days_in(year: int, month: int) -> int:
    """The days of a month."""
    if month == 12:
        return 31
    return (date(year, month + 1, 1) - date(year, month, 1)).days


def checked(request: str, *days: date) -> str:
    """A working's first line: the request, and for each date its year's kind, and its day beside
    its month's length: "weekday of 1978-04-12, common 12/30"."""
    parts = (f"{kind_of(day.year)} {within(day.year, day.month, day.day)}" for day in days)
    return ", ".join((request, *parts))


def within(year: int, month: int, day: int) -> str:
    """ "30/28": a day, which may not exist, beside its month's length."""
    return f"{day}/{days_in(year, month)}"


def days_in_year(year: int) -> int:
    """365, or 366 in a leap year."""
    return 365 + is_leap(year)


def days_before(year: int, month: int) -> int:
    """The days of the year before a month begins: 60 for March of a leap year."""
    return (date(year, month, 1) - date(year, 1, 1)).days


def day_of_year(day: date) -> int:
    """1 for the first of January."""
    return (day - date(day.year, 1, 1)).days + 1


def weekday(day: date) -> str:
    """The English name of the day of the week."""
    return WEEKDAYS[day.isoweekday() % 7]


def spoken(day: date) -> str:
    """ "3 May 1999", as the last lines write dates."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def counted(number: int, unit: str) -> str:
    """ "1 week", "3 weeks"."""
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
