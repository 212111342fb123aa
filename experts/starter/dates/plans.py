"""How people say what a cron expression means: "every weekday at 9:30"."""

from __future__ import annotations

from random import Random

from experts.starter.dates.cron import Cron
from experts.starter.dates.phrasing import ordinal, write_clock
from experts.starter.dates.problems import MONTHS, WEEKDAYS


def write_plan(cron: Cron, random: Random) -> str:
    """The plan of an expression from `draw_cron`, in everyday words or in cron-descriptor's."""
    if random.random() < 0.15:
        return cron.english[0].lower() + cron.english[1:]
    when, days = _time_of_day(cron, random), write_days(cron, random)
    if not days:
        return when
    return random.choice((f"{when} {days}", f"{when}, {days}", f"{days} {when}"))


def _time_of_day(cron: Cron, random: Random) -> str:
    minute, hour = cron.minute, cron.hour
    if minute == "*":
        return random.choice(("every minute", "each minute", "once a minute"))
    if minute.startswith("*/"):
        often = f"every {minute[2:]} {random.choice(('minutes', 'minutes', 'min'))}"
        return often + (_window(hour, random) if hour != "*" else "")
    if hour.startswith("*/"):
        return f"every {hour[2:]} hours"
    if "-" in hour or hour == "*":
        past = _hourly(minute, random)
        return past + (_window(hour, random) if hour != "*" else "")
    times = [write_clock(60 * int(value) + int(minute), random) for value in hour.split(",")]
    return "at " + " and ".join(times)


def _hourly(minute: str, random: Random) -> str:
    if minute == "0":
        return random.choice(("every hour", "hourly", "every hour on the hour"))
    return random.choice(
        (f"every hour at minute {minute}", f"{minute} minutes past every hour",
         f"at minute {minute} of every hour")
    )  # fmt: skip


def _window(hours: str, random: Random) -> str:
    """The hours of a range: "9-17" runs from 09:00 to 17:59."""
    first, last = hours.split("-")
    return random.choice(
        (f" between {int(first):02d}:00 and {int(last):02d}:59", f" during hours {first} to {last}",
         f" from {first}:00 to {last}:59", f" in the hours {first}-{last}")
    )  # fmt: skip


def write_days(cron: Cron, random: Random) -> str:
    """The days of an expression; "" where they are all and it goes without saying."""
    if cron.weekday != "*":
        return _weekdays(cron.weekday, random)
    month = MONTHS[int(cron.month) - 1] if cron.month != "*" else ""
    if cron.day == "*":
        if month:
            return random.choice((f"in {month}", f"every day in {month}", f"only in {month}"))
        on_clock = cron.hour != "*" and "*" not in cron.minute + cron.hour
        return random.choice(("every day", "daily", "each day")) if on_clock else ""
    number = int(cron.day)
    if month:
        return random.choice(
            (f"on {number} {month}", f"on {month} {number}", f"every {ordinal(number)} of {month}",
             f"on the {ordinal(number)} of {month}")
        )  # fmt: skip
    return random.choice(
        (f"on the {ordinal(number)} of every month", f"on day {number} of the month",
         f"every month on the {ordinal(number)}", f"on the {ordinal(number)} of each month")
    )  # fmt: skip


def _weekdays(field: str, random: Random) -> str:
    """Days of the week: "on Mondays", "Monday to Friday", "on weekdays"."""
    if field == "1-5" and random.random() < 0.5:
        return random.choice(("on weekdays", "every weekday", "on working days", "Mon-Fri"))
    if "-" in field:
        first, last = (WEEKDAYS[int(number)] for number in field.split("-"))
        return random.choice((f"{first} to {last}", f"{first} through {last}",
                              f"from {first} to {last}"))  # fmt: skip
    names = [WEEKDAYS[int(number)] for number in field.split(",")]
    if len(names) == 1:
        return random.choice((f"every {names[0]}", f"on {names[0]}s", f"on {names[0]}"))
    listed = _listed(names)
    plural = _listed([f"{name}s" for name in names])
    return random.choice((f"every {listed}", f"on {plural}", f"on {listed}"))


def _listed(names: list[str]) -> str:
    """ "Monday, Wednesday and Friday"."""
    return f"{', '.join(names[:-1])} and {names[-1]}"
