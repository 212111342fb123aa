"""Questions that the dates expert declines, with the short sentence that says why.

Where the question looks like one that has an answer, the working begins as that answer's does, up
to what shows that there is none: a month's length, a place's clock. So the model decides it where
it is seen, and not at its first word.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random

from experts.starter.dates import sampling
from experts.starter.dates.clocks import DAY, Zone, conversion_request, known, offset_request
from experts.starter.dates.cron import draw_cron
from experts.starter.dates.facts import ambiguous_abbreviations, fixed_zones, varying_places
from experts.starter.dates.phrasing import FORMS, ordinal, write_clock, write_count, write_date
from experts.starter.dates.problems import (
    EVALUATION_SHARE,
    FIRST_YEAR,
    LAST_YEAR,
    MONTHS,
    checked,
    days_in,
    kind_of,
    spoken,
    within,
)
from experts.starter.dates.spans import MOST_YEARS, Unit, count_years, shift_request
from experts.starter.shapes import Item
from experts.starter.wording import disturb

NO_TODAY = "I do not know today's date."
NO_CLOCK = "I do not know what time it is now."
NO_HOLIDAYS = "I do not know on which dates holidays fall."
YEARS = f"I only know the years {FIRST_YEAR} to {LAST_YEAR}."
TOO_FAR = "I can add at most {day} days, {week} weeks, {month} months or {year} years.".format(
    **sampling.MOST
)
TOO_LONG = f"I can count the days of at most {MOST_YEARS} years."
NO_CRON = "I only know cron expressions of five simple fields of numbers."
TODAY = (
    "What is today's date?", "what day is it today?", "which weekday is tomorrow?", "whats the date"
    " today", "What was the date yesterday?", "How many days are there until {day}?", "What date is"
    " it in {count}?", "what date was it {count} ago", "what is the current week number?", "How old"
    " am I if I was born on {day}?", "How long ago was {day}?", "days since {day}", "days until"
    " {day}", "how many days left this year?", "Which ISO week is it now?", "what weekday is"
    " it", "Is this year a leap year?", "what is the date next Monday?", "what month is it", "how"
    " many days until my birthday on {day}?", "what year is it?", "{count} from now?", "What date"
    " will it be {count} from today?", "how many weeks until {day}",
)  # fmt: skip
NOW = (
    "What time is it?", "what time is it in {zone}?", "what time is it now in {zone}", "current"
    " time in {zone}", "What is the time in {zone} now?", "time in {zone} right now", "is it night"
    " in {zone}?",
)  # fmt: skip
HOLIDAYS = (
    "Easter", "Ramadan", "Thanksgiving", "Diwali", "Passover", "Mother's Day", "Whit Monday",
    "Chinese New Year", "Labor Day", "Good Friday",
)  # fmt: skip
HOLIDAY_FORMS = (
    "When is {holiday} {year}?", "what date is {holiday} in {year}", "On which day does {holiday}"
    " fall in {year}?", "{holiday} {year}?", "date of {holiday} {year}",
)  # fmt: skip
STARTS: tuple[str, ...] = (
    *"bdfghjklmnprstvwz",
    "br",
    "ch",
    "dr",
    "gr",
    "kh",
    "pl",
    "sh",
    "st",
    "th",
    "tr",
)
ENDS: tuple[str, ...] = (
    *"klmnrst",
    "ville",
    "burg",
    "ton",
    "abad",
    "grad",
    "stad",
    "ia",
    "land",
    "port",
    "polis",
)
"""Of made-up places."""
ONE_DATE = ("weekday", "day of the year", "ISO week")
"""Their requests are these words with "of" and the date."""


def out_of_range(random: Random) -> Item:
    """A question that is declined, or whose date does not exist."""
    kind = random.choices(list(_KINDS), weights=list(_KINDS.values()))[0]
    question, answer = kind(random)
    return Item(disturb(question, random), answer)


def for_evaluation(item: Item) -> bool:
    """Whether a declined question is kept for evaluation, by a hash of its letters and digits."""
    letters = "".join(filter(str.isalnum, item.question.lower()))
    return zlib.crc32(letters.encode()) % EVALUATION_SHARE == 0


def _ask_about(day: str, written: str, random: Random) -> tuple[str, str]:
    """A question about one date, or about the days from or to it, and its working's request.

    The question has `day`, the request `written`.
    """
    if random.random() < 0.6:
        kind = random.choice(ONE_DATE)
        return random.choice(FORMS[kind]).format(day=day), f"{kind} of {written}"
    if random.random() < 0.6:
        count, unit = sampling.draw_shift(random)
        form = random.choice(FORMS["before" if count < 0 else "after"])
        question = form.format(day=day, count=write_count(abs(count), unit, random))
        return question, shift_request(written, count, unit)
    end = sampling.draw_day(random)
    question = random.choice(FORMS["between"]).format(start=day, end=write_date(end, random))
    return question, f"days from {written} to {end}"


def _today(random: Random) -> tuple[str, str]:
    count, unit = sampling.draw_shift(random)
    question = random.choice(TODAY).format(
        day=write_date(sampling.draw_day(random), random),
        count=write_count(abs(count), unit, random),
    )
    return question, NO_TODAY


def _now(random: Random) -> tuple[str, str]:
    places = (*fixed_zones(), *varying_places())
    return random.choice(NOW).format(zone=random.choice(places)), NO_CLOCK


def _holiday(random: Random) -> tuple[str, str]:
    form, year = random.choice(HOLIDAY_FORMS), sampling.draw_year(random)
    return form.format(holiday=random.choice(HOLIDAYS), year=year), NO_HOLIDAYS


def _no_such_day(random: Random) -> tuple[str, str]:
    """The 30th of February, the 31st of April, the 29th of February of a common year."""
    while True:
        year = sampling.draw_year(random)
        month = 2 if random.random() < 0.5 else random.choice((4, 6, 9, 11))
        length = days_in(year, month)
        if length < 29 or month != 2:
            break
    number = random.choice((length + 1, length + 1, random.randint(length + 1, 39)))
    name = MONTHS[month - 1]
    day = random.choice((
        f"{year}-{month:02d}-{number}", f"{number} {name} {year}", f"{name} {number}, {year}",
        f"{number}.{month:02d}.{year}", f"{ordinal(number)} of {name} {year}",
    ))  # fmt: skip
    question, request = _ask_about(day, f"{year}-{month:02d}-{number}", random)
    answer = f"{name} {year} has only {length} days."
    found = f"{kind_of(year)} {within(year, month, number)}, no such day"
    return question, f"{request}, {found}\n{answer}"


def _no_such_month(random: Random) -> tuple[str, str]:
    month, number = random.randint(13, 20), random.randint(13, 28)
    year = sampling.draw_year(random)
    day = random.choice((f"{year}-{month}-{number}", f"{number}.{month}.{year}",
                         f"{year}/{month}/{number}"))  # fmt: skip
    question, request = _ask_about(day, f"{year}-{month}-{number}", random)
    return question, f"{request}, no month {month}\nThere is no month {month}."


def _other_year(random: Random) -> tuple[str, str]:
    year = random.choice((random.randint(1000, FIRST_YEAR - 1), random.randint(2400, 9999)))
    day = sampling.draw_day(random)
    number = min(day.day, 28)
    name = MONTHS[day.month - 1]
    if random.random() < 0.2:
        return random.choice(FORMS["leap year"]).format(year=year), YEARS
    text = random.choice((f"{number} {name} {year}", f"{name} {number}, {year}",
                          f"{year}-{day.month:02d}-{number:02d}"))  # fmt: skip
    question, request = _ask_about(text, f"{year}-{day.month:02d}-{number:02d}", random)
    return question, f"{request}, no year {year}\n{YEARS}"


def _ambiguous_date(random: Random) -> tuple[str, str]:
    """03/04/2024, with no word about the order."""
    while True:
        day = sampling.draw_day(random)
        if day.day <= 12 and day.day != day.month:
            break
    turned = day.replace(day=day.month, month=day.day)
    answer = f"This can be {spoken(day)} or {spoken(turned)}: please write the month as a word."
    question, request = _ask_about(f"{day:%d/%m/%Y}", f"{day:%d/%m/%Y}", random)
    return question, f"{request}, two dates\n{answer}"


def _changing_clock(random: Random) -> tuple[str, str]:
    """A place with daylight saving time."""
    place = random.choice(varying_places())
    answer = f"The clocks of {place} change during the year: please give its UTC offset."
    return _ask_zone(place, f"{place} changes", answer, random)


def _ambiguous_zone(random: Random) -> tuple[str, str]:
    name = random.choice(ambiguous_abbreviations())
    answer = f"{name} is used for several time zones: please give the UTC offset."
    return _ask_zone(name, f"{name} is not one zone", answer, random)


def _unknown_place(random: Random) -> tuple[str, str]:
    """A name made of the halves of two places, of one place and other letters, or of syllables."""
    places = [name for name in (*fixed_zones(), *varying_places()) if not name.isupper()]
    while True:
        made_up = random.choice((_of_halves, _of_halves, _of_letters, _of_syllables))
        name = made_up(places, random)
        if name not in places and len(name) > 3:
            answer = f"I do not know the time zone of {name}."
            return _ask_zone(name, f"{name} is unknown", answer, random)


def _of_halves(places: list[str], random: Random) -> str:
    first, second = (random.choice(places).split()[0] for _ in range(2))
    return first[: len(first) // 2 + 1] + second[len(second) // 2 :].lower()


def _of_letters(places: list[str], random: Random) -> str:
    """A place with two letters replaced, not its first: one is a slip that anybody forgives."""
    name = list(random.choice(places).split()[0])
    for place in random.sample(range(1, len(name)), min(2, len(name) - 1)):
        name[place] = random.choice("aeiou" if name[place] in "aeiou" else "bdfgklmnprstvz")
    return "".join(name)


def _of_syllables(_: list[str], random: Random) -> str:
    pairs = (random.choice(STARTS) + random.choice("aeiou") for _ in range(random.randint(1, 3)))
    name = "".join(pairs) + random.choice(ENDS)
    return name.capitalize()


def _ask_zone(name: str, found: str, answer: str, random: Random) -> tuple[str, str]:
    """A question about a zone's offset, or with the zone as source or target; the working goes as
    far as `found`, what is known of the zone."""
    if random.random() < 0.4:
        question = random.choice(FORMS["offset of"]).format(zone=name)
        return question, "\n".join((offset_request(name), found, answer))
    zone, other = Zone(name), sampling.draw_zone(random)
    minutes = 15 * random.randrange(DAY // 15)
    form, time = random.choice(FORMS["time zone"]), write_clock(minutes, random)
    if random.random() < 0.5:
        request = conversion_request(minutes, other, zone)
        question = form.format(here=other.after(time), to=name, there=f"in {name}")
        return question, "\n".join((request, known(other), found, answer))
    request = conversion_request(minutes, zone, other)
    question = form.format(here=zone.after(time), to=other.name, there=f"in {other.name}")
    return question, "\n".join((request, found, answer))


def _too_far(random: Random) -> tuple[str, str]:
    unit: Unit = random.choice(("day", "week", "month", "year"))
    most = sampling.MOST[unit]
    count = random.randint(most + 1, random.choice((2 * most, 20 * most)))
    day, sign = sampling.draw_day(random), random.choice((-1, 1))
    form = random.choice(FORMS["before" if sign < 0 else "after"])
    question = form.format(day=write_date(day, random), count=write_count(count, unit, random))
    request = checked(shift_request(str(day), sign * count, unit), day)
    return question, f"{request}\nmore than {most}\n{TOO_FAR}"


def _too_long(random: Random) -> tuple[str, str]:
    while True:
        days = sorted(sampling.draw_day(random) for _ in range(2))
        if days[1].year - days[0].year > MOST_YEARS:
            break
    start, end = (write_date(day, random) for day in days)
    question = random.choice(FORMS["between"]).format(start=start, end=end)
    request = checked(f"days from {days[0]} to {days[1]}", *days)
    years = "\n".join(count_years(days[0].year, days[1].year))
    return question, f"{request}\n{years}\nmore than {MOST_YEARS}\n{TOO_LONG}"


def _other_cron(random: Random) -> tuple[str, str]:
    """Shortcuts, seconds, years, Quartz's letters, numbers that no clock has."""
    fields = str(draw_cron(random)).split()
    expression = random.choice((
        random.choice(("@daily", "@reboot", "@hourly", "@weekly", "@yearly")),
        " ".join([str(random.randrange(60)), *fields]),
        " ".join(fields[:4]),
        f"{random.randint(60, 99)} {' '.join(fields[1:])}",
        f"{fields[0]} {random.randint(24, 59)} {' '.join(fields[2:])}",
        f"0 {random.randrange(24)} L * *",
        f"0 {random.randrange(24)} * * {random.choice(('MON', 'SAT,SUN', 'MON-FRI', 'WED,FRI'))}",
        f"0 {random.randrange(24)} * * {random.randint(1, 7)}#{random.randint(1, 5)}",
        f"0 {random.randrange(24)} {random.randint(1, 28)}W * *",
    ))  # fmt: skip
    question = random.choice(FORMS["cron to English"]).format(cron=expression)
    return question, f"`{expression}`\n{NO_CRON}"


_KINDS: dict[Callable[[Random], tuple[str, str]], float] = {
    _today: 0.08,
    _now: 0.03,
    _holiday: 0.03,
    _no_such_day: 0.12,
    _no_such_month: 0.05,
    _other_year: 0.14,
    _ambiguous_date: 0.1,
    _changing_clock: 0.18,
    _ambiguous_zone: 0.03,
    _unknown_place: 0.16,
    _too_far: 0.06,
    _too_long: 0.05,
    _other_cron: 0.13,
}
