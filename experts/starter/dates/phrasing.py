"""How people ask about dates: the forms of questions, and the ways to write dates and times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from random import Random

from experts.starter.arithmetic.phrasing import UNITS
from experts.starter.dates.clocks import DAY, Zone
from experts.starter.dates.problems import MONTHS, Problem
from experts.starter.shapes import Item
from experts.starter.wording import disturb

MOST_IN_WORDS = 13
"""Numbers below this are written as words now and then."""
FORMS: dict[str, tuple[str, ...]] = {
    "weekday": (
        "What day of the week is {day}?", "What weekday was {day}?", "what day is {day}",
        "Which day of the week was {day}?", "Weekday of {day}?", "weekday of {day}",
        "{day} is which day of the week?", "{day}: what weekday?", "day of the week for {day}",
        "On which weekday does {day} fall?", "What day of the week did {day} fall on?",
        "I was born on {day}. What weekday was that?", "Tell me the weekday of {day}.",
        "what day of the week will {day} be?", "Find the weekday for {day}",
        "Our wedding is on {day}. Which day of the week is that?", "whats the weekday of {day}",
        "what day of the week was it on {day}", "Do you know what weekday {day} is?",
    ),
    "leap year": (
        "Is {year} a leap year?", "is {year} a leap year", "Was {year} a leap year?",
        "{year} a leap year?", "leap year {year}?", "Will {year} be a leap year?",
        "Tell me whether {year} is a leap year.", "was the year {year} a leap year",
        "{year}: leap year or not?", "check if {year} is a leap year",
    ),
    "days of month": (
        "How many days does {month} {year} have?", "how many days in {month} {year}",
        "How many days are there in {month} {year}?", "days in {month} {year}",
        "How long is {month} {year}?", "number of days in {month} {year}?",
    ),
    "days of year": (
        "How many days does {year} have?", "How many days are in {year}?", "days in {year}",
        "how many days in the year {year}", "How many days did the year {year} have?",
    ),
    "day of the year": (
        "What day of the year is {day}?", "Which day of the year is {day}?", "day of year {day}",
        "what number day of the year is {day}", "{day}: day of the year?",
        "What is the ordinal day number of {day}?", "day number of {day} in its year",
        "How many days into the year is {day}, counting that day?", "day of the year for {day}",
    ),
    "date of number": (
        "What date is day {number} of {year}?", "Which date is the {ordinal} day of {year}?",
        "day {number} of {year}", "what's the {ordinal} day of {year}?",
        "Which day is day number {number} of {year}?", "date of day {number} in {year}",
        "what is the date of the {ordinal} day of the year {year}",
    ),
    "ISO week": (
        "Which ISO week is {day} in?", "What week number is {day}?", "ISO week of {day}",
        "what calendar week is {day}", "week number of {day}?", "In which week is {day}?",
        "What is the ISO week number of {day}?", "{day}: which calendar week?",
        "which week of the year does {day} fall in (ISO)?", "iso week number for {day}",
    ),
    "after": (
        "What date is {count} after {day}?", "{day} plus {count}", "{day} + {count}",
        "What is the date {count} after {day}?", "which date is {count} after {day}",
        "Add {count} to {day}.", "add {count} to {day}", "{count} from {day}?",
        "{count} after {day}", "If I start on {day} and wait {count}, what date is it?",
        "A contract of {day} ends {count} later. On what date?", "{count} later than {day}?",
        "What day will it be {count} after {day}?", "date {count} after {day}",
        "Something is due {count} after {day}. When is that?",
    ),
    "before": (
        "What date was {count} before {day}?", "{day} minus {count}", "{day} - {count}",
        "What is the date {count} before {day}?", "which date is {count} before {day}",
        "Subtract {count} from {day}.", "go back {count} from {day}", "{count} before {day}",
        "{count} earlier than {day}?", "date {count} before {day}",
        "I must give notice {count} before {day}. When is that?",
    ),
    "weekday after": (
        "What weekday is {count} after {day}?", "which day of the week is {count} after {day}",
        "weekday {count} after {day}", "What day of the week will it be {count} after {day}?",
    ),
    "between": (
        "How many days are there between {start} and {end}?", "days between {start} and {end}",
        "How many days from {start} to {end}?", "number of days from {start} until {end}",
        "How many days is it from {start} to {end}?", "days from {start} to {end}",
        "What is the difference in days between {start} and {end}?", "{start} to {end} in days",
        "how long is it from {start} to {end} in days", "How many days lie between {start} and"
        " {end}?", "count the days from {start} to {end}", "{start} - {end}: how many days?",
        "We stay from {start} to {end}. How many days is that?",
    ),
    "days in weeks": (
        "How many weeks are {days} days?", "{days} days in weeks", "Convert {days} days to weeks.",
        "How many weeks and days is {days} days?", "{days} days are how many weeks",
    ),
    "time zone": (
        "What time is it {there} when it is {here}?", "{here} to {to} time", "Convert {here} to"
        " {to} time.", "{here} is what time {there}?", "What is {here} {there}?",
        "If it is {here}, what time is it {there}?", "it's {here}, what time {there}?",
        "When it is {here}, what is the time {there}?", "convert {here} to {to}",
        "A call starts at {here}. When is that {there}?", "{here} in {to} time?",
        "The meeting is at {here}. What time is that {there}?", "{here} -> {to}",
    ),
    "offset of": (
        "What is the UTC offset of {zone}?", "utc offset of {zone}", "What time zone offset does"
        " {zone} have?", "{zone} utc offset?", "How far is {zone} ahead of UTC?",
        "what's the offset of {zone} from UTC", "Which UTC offset does {zone} use?",
    ),
    "cron to English": (
        "What does the cron expression {cron} mean?", "{cron}", "explain {cron}", "{cron} in"
        " English", "Explain the cron expression {cron}.", "when does {cron} run?",
        "What does {cron} mean in a crontab?", "In cron, what is {cron}?", "cron {cron} meaning",
        "When will a job with the schedule {cron} run?", "translate cron {cron} to English",
        "decode this crontab: {cron}", "how often does {cron} fire", "read this cron line: {cron}",
    ),
    "English to cron": (
        "Write a cron expression for {plan}.", "cron expression for {plan}", "cron for {plan}",
        "What is the cron expression for {plan}?", "crontab entry for: {plan}", "{plan} as cron",
        "How do I write {plan} in cron?", "Which cron expression means {plan}?",
        "I need a cron schedule for {plan}", "Give me the crontab schedule for {plan}.",
        "how do I run a cron job {plan}?", "cron job that runs {plan}", "turn into cron: {plan}",
        "Schedule a cron job {plan}.", "cron syntax {plan}",
    ),
}  # fmt: skip
SHORTS: dict[str, tuple[str, ...]] = {
    "weekday": ("the weekday of {day}", "the day of the week of {day}"),
    "days of month": ("the number of days in {month} {year}",),
    "days of year": ("the number of days in {year}",),
    "day of the year": ("the day of the year of {day}", "the day number of {day}"),
    "date of number": ("the date of day {number} of {year}",),
    "ISO week": ("the ISO week of {day}", "the week number of {day}"),
    "after": ("the date {count} after {day}", "{day} plus {count}"),
    "before": ("the date {count} before {day}", "{day} minus {count}"),
    "weekday after": ("the weekday {count} after {day}",),
    "between": ("the number of days from {start} to {end}", "the days between {start} and {end}"),
    "days in weeks": ("{days} days in weeks",),
    "time zone": ("{here} in {to} time",),
    "offset of": ("the UTC offset of {zone}",),
    "cron to English": ("the meaning of the cron expression {cron}", "the cron schedule {cron}"),
    "English to cron": ("the cron expression for {plan}", "the crontab entry for {plan}"),
}
BEGUN = ("{} is", "{}:", "So {} is")


@dataclass(frozen=True)
class Case:
    """A problem with what a question about it has to say: a key of `FORMS`, and its fields.

    Fields that are dates are written as people write dates; others stand as they are.
    """

    problem: Problem
    form: str
    fields: dict[str, str | date]

    def item(self, random: Random) -> Item:
        """A question a person might type, with its short form."""
        written = {
            name: write_date(value, random) if isinstance(value, date) else value
            for name, value in self.fields.items()
        }
        question = random.choice(FORMS[self.form]).format(**written)
        short = ""
        begun: tuple[str, ...] = ()
        if shorts := SHORTS.get(self.form):
            short = random.choice(shorts).format(**written)
            begun = tuple(form.format(short[0].upper() + short[1:]) for form in BEGUN[:2])
            begun = (*begun, BEGUN[2].format(short))
        return Item(disturb(question, random), self.problem.working, short, begun)


def write_date(day: date, random: Random) -> str:
    """A date in one of the forms in use, never one that could mean another date."""
    name = MONTHS[day.month - 1]
    forms = [
        str(day), str(day), f"{day.day} {name} {day.year}", f"{day.day} {name} {day.year}",
        f"{name} {day.day}, {day.year}", f"{name} {day.day}, {day.year}",
        f"{name} {day.day} {day.year}", f"{ordinal(day.day)} of {name} {day.year}",
        f"the {ordinal(day.day)} of {name} {day.year}", f"{name} {ordinal(day.day)}, {day.year}",
        f"{ordinal(day.day)} {name} {day.year}", f"{day.day} {name[:3]} {day.year}",
        f"{name[:3]} {day.day}, {day.year}", f"{day:%d.%m.%Y}", f"{day.day}.{day.month}.{day.year}",
        f"{day.day}. {name} {day.year}", f"{day:%Y/%m/%d}", slashed(day, random),
        slashed(day, random),
    ]  # fmt: skip
    return random.choice(forms)


def slashed(day: date, random: Random) -> str:
    """15/03/2024 or 03/15/2024; where both could be meant, the order is named."""
    first, second, names = random.choice(
        ((day.day, day.month, "dd/mm/yyyy"), (day.month, day.day, "mm/dd/yyyy"))
    )
    text = f"{first:02d}/{second:02d}/{day.year}"
    return text if max(first, second) > 12 or first == second else f"{text} ({names})"


def ordinal(number: int) -> str:
    """ "1st", "22nd", "113th"."""
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def write_count(number: int, unit: str, random: Random) -> str:
    """ "10 days", "two weeks", "a month"."""
    if number == 1:
        return f"{random.choice(('1', 'one', 'an' if unit == 'hour' else 'a'))} {unit}"
    word = UNITS[number] if number < MOST_IN_WORDS and random.random() < 0.4 else str(number)
    return f"{word} {unit}s"


def write_clock(minutes: int, random: Random) -> str:
    """A time of day, on the 24-hour clock or with am and pm."""
    hour, minute = divmod(minutes % DAY, 60)
    half, of_twelve = "am" if hour < 12 else "pm", (hour - 1) % 12 + 1
    full = f"{hour:02d}:{minute:02d}"
    short = f"{of_twelve}:{minute:02d}"
    forms = [full, full, f"{hour}:{minute:02d}"]
    forms += [f"{short} {half}", f"{short}{half}", f"{short} {half.upper()}"]
    if minute == 0:
        forms += [f"{of_twelve} {half}", f"{of_twelve}{half}"]
        forms += {0: ["midnight"], 12: ["noon"]}.get(hour, [])
    return random.choice(forms)


def write_zone(zone: Zone, random: Random) -> str:
    """A zone's name; offsets with or without zeros."""
    name = zone.name
    if len(name) < 4 or not name.startswith("UTC"):
        return name
    sign, hours, minutes = name[3], int(name[4:6]), name[7:9]
    short = f"{sign}{hours}" + (f":{minutes}" if minutes != "00" else "")
    return random.choice((name, f"UTC{short}", f"UTC{short}", f"GMT{short}", f"UTC {short}"))
