"""Reading the result out of an answer about dates, and judging it. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

from experts.starter.dates.problems import MONTHS, WEEKDAYS

Reader = Callable[[str], object]

_MONTH = "(" + "|".join(f"{name[:3]}(?:{name[3:]})?" for name in MONTHS) + r")\b\.?"
_DATE = re.compile(
    rf"(?P<iso>\d{{4}}-\d\d-\d\d)"
    rf"|(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\.?(?: of)? {_MONTH},? (?P<year>\d{{4}})"
    rf"|{_MONTH} (?P<day2>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year2>\d{{4}})",
    re.I,
)
_CLOCK = re.compile(r"(?<![-+−\d])(\d{1,2}):(\d\d)\s*([ap]\.?m\b)?", re.I)
_CRON = re.compile(r"(?<![^\s`\"'])[\d*/,-]+(?: [\d*/,-]+){4}(?![^\s`\"'.])")
_WEEKS = re.compile(r"(\d+) weeks?(?:,? and (\d+) days?)?")


def is_correct(text: str, answer: str) -> bool:
    """Whether `text` ends in `answer`, whatever the words around it.

    The answer's form says what is looked for: a weekday, a date, yes or no, a week, a number of
    days, a time, an offset or a cron expression; with any other answer a sentence of the text must
    end, up to punctuation and capitals.
    """
    for form, reader in _READERS.items():
        if re.fullmatch(form, answer):
            found = reader(text)
            return found is not None and found == reader(answer)
    sentences = re.split(r"[.!?](?=\s|$)|\n", text)
    return any(_letters(sentence).endswith(_letters(answer)) for sentence in sentences)


def _weekday(text: str) -> str | None:
    found = re.findall("|".join(WEEKDAYS), text, re.I)
    return found[-1].lower() if found else None


def _yes_or_no(text: str) -> bool | None:
    """What is said of a leap year; a bare yes or no counts."""
    if re.search(r"\bno\b|\b(?:not|isn't|wasn't|won't be) an? leap year|\bcommon year", text, re.I):
        return False
    if re.search(r"\byes\b|\ba leap year", text, re.I):
        return True
    return None


def _date(text: str) -> date | None:
    """The last date in `text`, or None where there is none or no such day."""
    found = list(_DATE.finditer(text))
    if not found:
        return None
    match = found[-1]
    try:
        if match["iso"]:
            return date.fromisoformat(match["iso"])
        name = (match[3] or match[5])[:3].title()
        month = next(i for i, month in enumerate(MONTHS, 1) if month.startswith(name))
        return date(int(match["year"] or match["year2"]), month, int(match["day"] or match["day2"]))
    except ValueError:
        return None


def _iso_week(text: str) -> tuple[int, int | None] | None:
    """(week, year) of "week 53 of 2020" or "2020-W53"."""
    if found := re.findall(r"(\d{4})-?W(\d\d)", text):
        return int(found[-1][1]), int(found[-1][0])
    if found := re.findall(r"\bweek (\d{1,2})(?:,? (?:of|in) (\d{4}))?", text, re.I):
        return int(found[-1][0]), int(found[-1][1]) if found[-1][1] else None
    return None


def _number_of_day(text: str) -> int | None:
    found = re.findall(r"\bday(?: number)? (\d+)|\b(\d+)(?:st|nd|rd|th) day", text, re.I)
    return int("".join(found[-1])) if found else None


def _days(text: str) -> int | None:
    found = re.findall(r"([\d,]*\d) days?\b", text)
    return int(found[-1].replace(",", "")) if found else None


def _weeks_and_days(text: str) -> tuple[int, int] | None:
    found = _WEEKS.findall(text)
    return (int(found[-1][0]), int(found[-1][1] or 0)) if found else None


def _time(text: str) -> tuple[int, int, str] | None:
    """The last time of day, with the day it falls on: "22:45, the day before"."""
    found = list(_CLOCK.finditer(text))
    if not found:
        return None
    hour, minute, half = found[-1].groups()
    hours = int(hour) % 12 + 12 * (half[0].lower() == "p") if half else int(hour)
    rest = text[found[-1].end() :]
    if re.search(r"next|following|tomorrow", rest, re.I):
        return hours, int(minute), "next"
    before = re.search(r"day before|previous|yesterday", rest, re.I)
    return hours, int(minute), "before" if before else ""


def _offset(text: str) -> int | None:
    """Minutes ahead of UTC."""
    found = re.findall(r"(?:UTC|GMT)\s?([-+−±])\s?(\d{1,2})(?::(\d\d))?", text)
    if not found:
        return None
    sign, hours, minutes = found[-1]
    return (-1 if sign in "-−" else 1) * (60 * int(hours) + int(minutes or 0))


def _cron(text: str) -> str | None:
    found = _CRON.findall(text)
    return found[-1] if found else None


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


_READERS: dict[str, Reader] = {
    "|".join(WEEKDAYS): _weekday,
    "yes|no": _yes_or_no,
    r"\d{4}-\d\d-\d\d": _date,
    r"\d{4}-W\d\d": _iso_week,
    r"day \d+": _number_of_day,
    r"\d+ days?": _days,
    r"\d+ weeks?( and \d days?)?": _weeks_and_days,
    r"\d\d:\d\d(, the (day before|next day))?": _time,
    r"UTC[-+]\d\d:\d\d": _offset,
    r"\S+( \S+){4}(?<=[\d*])": _cron,
}
"""What an answer looks like, and how such a result is read out of a text."""
