"""Problems about time zones: a time of day here is which time there?"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from experts.starter.dates.facts import fixed_zones, parse_offset, write_offset
from experts.starter.dates.problems import Problem

DAY = 24 * 60
WHEN = {-1: "the day before", 0: "", 1: "the next day"}
AT_UTC = "UTC+00:00"


@dataclass(frozen=True)
class Zone:
    """A place, an abbreviation or an offset: "Kolkata", "CET", "UTC+05:30", "UTC"."""

    name: str

    @property
    def offset(self) -> int:
        """Minutes ahead of UTC."""
        if self.name == "UTC":
            return 0
        if self.name.startswith("UTC"):
            return parse_offset(self.name)
        return fixed_zones()[self.name]

    @property
    def is_place(self) -> bool:
        """Whether it is said with "in"."""
        return not self.name.isupper() and self.name != "ChST"

    def after(self, time: str) -> str:
        """ "09:15 in Kolkata", "09:15 CET"."""
        return f"{time} in {self.name}" if self.is_place else f"{time} {self.name}"


def draw_hour(random: Random) -> int:
    """An hour of the day; those that "am" and "pm" turn and those of two digits more often."""
    hour: int = random.choice((*range(24), 0, 10, 11, 12, 22, 23))
    return hour


def write_time(minutes: int) -> str:
    """555 as "09:15"; minutes outside one day are brought into it."""
    return f"{minutes % DAY // 60:02d}:{minutes % 60:02d}"


def conversion_request(minutes: int, source: Zone, target: Zone) -> str:
    """ "09:15 Kolkata to CET"."""
    return f"{write_time(minutes)} {source.name} to {target.name}"


def known(zone: Zone) -> str:
    """ "Kolkata is UTC+05:30"."""
    return f"{zone.name} is {write_offset(zone.offset)}"


def offset_request(name: str) -> str:
    """ "offset of Kolkata"."""
    return f"offset of {name}"


def conversion(minutes: int, source: Zone, target: Zone) -> Problem | None:
    """A time of day in `source`, as minutes after midnight, in `target`'s time.

    Both offsets, said as the answer to a question about one says it; then to UTC and on; minutes
    before hours, which take their carry. None where the days are two apart.
    """
    request = conversion_request(minutes, source, target)
    steps = [request, *map(known, (source, target))]
    universal = minutes - source.offset
    local = universal % DAY + target.offset
    steps.append(_shift(minutes, -source.offset))
    steps.append(f"= {write_time(universal)}")
    steps.append(_shift(universal % DAY, target.offset))
    days = universal // DAY + local // DAY
    if days not in WHEN:
        return None
    when = WHEN[days]
    result = f"{write_time(local)}, {when}" if when else write_time(local)
    there = target.after(write_time(local))
    sentence = f"{source.after(write_time(minutes))} is {there}{', ' * bool(when)}{when}."
    return Problem("time zone", request, tuple(steps), sentence, result)


def _shift(minutes: int, offset: int) -> str:
    """ "15-30=-15 +60=45 09-1=08 08-05=03": minutes, which carry an hour or borrow one; hours,
    brought back into their day if they leave it; then whether midnight was passed."""
    sign = "-" if offset < 0 else "+"
    way = -1 if offset < 0 else 1
    hour, minute = divmod(minutes, 60)
    hours, rest = divmod(abs(offset), 60)
    text = [_brought_back(f"{minute:02d}{sign}{rest:02d}", minute + way * rest, 60)]
    if not 0 <= minute + way * rest < 60:
        text.append(f"{hour:02d}{sign}1={hour + way:02d}")
        hour += way
    text.append(_brought_back(f"{hour:02d}{sign}{hours:02d}", hour + way * hours, 24))
    return " ".join(filter(None, (*text, WHEN[(minutes + offset) // DAY])))


def _brought_back(expression: str, result: int, base: int) -> str:
    """ "20+10=30 -24=06": a result, and where it is not one from 0 up to before `base`, base
    taken away or added."""
    text = f"{expression}={result:02d}"
    if 0 <= result < base:
        return text
    back = f"+{base}" if result < 0 else f"-{base}"
    return f"{text} {back}={result % base:02d}"


def offset_of(zone: Zone) -> Problem:
    """The offset of a place or an abbreviation: a fact."""
    text = write_offset(zone.offset)
    sentence = f"{known(zone)} all year." if zone.is_place else f"{known(zone)}."
    request = offset_request(zone.name)
    return Problem("time zone", request, (request,), sentence, text, shared_out=False)
