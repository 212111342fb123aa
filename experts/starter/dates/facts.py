"""Time zones as the expert knows them, from `zones.txt`, which this module writes from tzdata.

`python -m experts.starter.dates.facts` rewrites the file; a test compares it with the installed
tzdata. It is kept so that training data and evaluation stay the same when tzdata moves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from zoneinfo import ZoneInfo

ZONES_FILE = Path(__file__).parent / "zones.txt"
FIRST_YEAR, LAST_YEAR = 2025, 2030
"""The years over which a zone's offset must not change, by the rules known today."""
VARIES, AMBIGUOUS = "varies", "ambiguous"
REGIONS = ("Africa", "America", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")


@cache
def fixed_zones() -> dict[str, int]:
    """Places and abbreviations whose clocks never change, with their minutes ahead of UTC."""
    return {name: parse_offset(text) for name, text in _lines() if text.startswith("UTC")}


@cache
def varying_places() -> tuple[str, ...]:
    """Places whose clocks are put forward and back in the course of the year."""
    return tuple(name for name, text in _lines() if text == VARIES)


@cache
def ambiguous_abbreviations() -> tuple[str, ...]:
    """Abbreviations that stand for several offsets: IST is used in India, Ireland and Israel."""
    return tuple(name for name, text in _lines() if text == AMBIGUOUS)


def write_offset(minutes: int) -> str:
    """330 as "UTC+05:30"."""
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'-' if minutes < 0 else '+'}{hours:02d}:{rest:02d}"


def parse_offset(text: str) -> int:
    """ "UTC+05:30" as 330 minutes."""
    sign = -1 if text[3] == "-" else 1
    return sign * (60 * int(text[4:6]) + int(text[7:9]))


def read_tzdata() -> dict[str, str]:
    """What `zones.txt` should hold: places and abbreviations, with their offsets.

    A place has the last part of its zone's name. An abbreviation has an offset if it means the same
    wherever it is used.
    """
    found: dict[str, str] = {}
    abbreviations: dict[str, set[int]] = defaultdict(set)
    for key in zone_keys():
        seen = _offsets(key)
        offsets = set().union(*seen.values())
        name = key.rpartition("/")[2].replace("_", " ")
        found[name] = write_offset(offsets.pop()) if len(offsets) == 1 else VARIES
        for abbreviation, used in seen.items():
            if abbreviation.isalpha():
                abbreviations[abbreviation] |= used
    found = {name: found[name] for name in sorted(found)}
    for name, used in sorted(abbreviations.items()):
        found[name] = write_offset(used.pop()) if len(used) == 1 else AMBIGUOUS
    return found


def _lines() -> Iterator[tuple[str, str]]:
    for line in ZONES_FILE.read_text(encoding="utf-8").splitlines():
        name, _, offset = line.partition(" | ")
        yield name, offset


def zone_keys() -> list[str]:
    """tzdata's zones, one for each country and way of keeping time: "America/Sao_Paulo".

    Of several that are the same from now on, the one of `zonenow.tab`, or else the first.
    """
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for country, _, key in _table("zone.tab"):
        if key.partition("/")[0] in REGIONS:
            alike[country, repr(sorted(_offsets(key).items()))].append(key)
    current = {key for _, _, key in _table("zonenow.tab")}
    return [next((key for key in keys if key in current), keys[0]) for keys in alike.values()]


def _table(name: str) -> list[list[str]]:
    """The rows of one of tzdata's tables: countries, coordinates, zone."""
    text = files("tzdata").joinpath("zoneinfo", name).read_text(encoding="utf-8")
    return [line.split("\t")[:3] for line in text.splitlines() if not line.startswith("#")]


@cache
def _offsets(key: str) -> dict[str, set[int]]:
    """The offsets in minutes that a zone has week by week, by the abbreviation in force."""
    with files("tzdata").joinpath("zoneinfo", *key.split("/")).open("rb") as file:
        zone = ZoneInfo.from_file(file)
    seen: dict[str, set[int]] = defaultdict(set)
    when = datetime(FIRST_YEAR, 1, 1, tzinfo=zone)
    while when.year <= LAST_YEAR:
        offset = when.utcoffset()
        assert offset is not None
        seen[when.tzname() or ""].add(offset // timedelta(minutes=1))
        when += timedelta(days=7)
    return seen


def main() -> None:
    """Write `zones.txt`."""
    lines = [f"{name} | {offset}\n" for name, offset in read_tzdata().items()]
    ZONES_FILE.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
