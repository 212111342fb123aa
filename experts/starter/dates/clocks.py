"""Problems about time zones: a time of day here is which time there?"""

from __future__ import annotations

from dataclasses import dataclass

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


def write_time(minutes: int) -> str:
    """555 as "09:15"; minutes outside one day are brought into it."""
    return f"{minutes % DAY // 60:02d}:{minutes % 60:02d}"


def conversion_request(minutes: int, source: Zone, target: Zone) -> str:
    """ "09:15 Kolkata to CET"."""
    return f"{write_time(minutes)} {source.name} to {target.name}"


def known(zone: Zone) -> str:
    """ "Kolkata is UTC+05:30"."""
    return f"{zone.name} is {write_offset(zone.offset)}"


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
    """ "15-30=45 09-05-1=03": minutes, then hours and what the minutes carry or borrow; then
    whether midnight was passed."""
    sign = "-" if offset < 0 else "+"
    hour, minute = divmod(minutes, 60)
    hours, rest = divmod(abs(offset), 60)
    total = minute - rest if offset < 0 else minute + rest
    carry = 0 if 0 <= total < 60 else 1
    result = minutes + offset
    text = (
        f"{minute:02d}{sign}{rest:02d}={result % 60:02d} "
        f"{hour:02d}{sign}{hours:02d}{sign}{carry}={result % DAY // 60:02d}"
    )
    return " ".join(filter(None, (text, WHEN[result // DAY])))


def offset_of(zone: Zone) -> Problem:
    """The offset of a place or an abbreviation: a fact."""
    text = write_offset(zone.offset)
    sentence = f"{known(zone)} all year." if zone.is_place else f"{known(zone)}."
    return Problem("time zone", f"offset of {zone.name}", (), sentence, text, shared_out=False)
