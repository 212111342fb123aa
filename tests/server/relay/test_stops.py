"""Stop strings over the seam between two models."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from server.relay.stops import SeamStops

LETTERS = st.text(alphabet="ab", max_size=12)
STOPS = st.lists(st.text(alphabet="ab", min_size=2, max_size=4), min_size=1, max_size=3)


def run(stops: SeamStops, legs: list[list[str]]) -> tuple[str, str | None]:
    """The visible text and the stop string matched, for legs of chunks."""
    seen = ""
    for number, leg in enumerate(legs):
        if number:
            stops.seam()
        for chunk in leg:
            sent, stop = stops.push(chunk)
            seen += sent
            if stop is not None:
                return seen, stop
    return seen + stops.flush(), None


def first_match(text: str, stops: list[str]) -> tuple[int, int] | None:
    """(end, begin) of the stop string that one model's text completes first."""
    return min(
        ((at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0), default=None
    )


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(LETTERS, LETTERS, STOPS, st.booleans())
def test_as_one_model_would(first: str, second: str, stops: list[str], whole: bool) -> None:
    """In whole legs or character by character: cut where one model's text would be cut."""
    if early := first_match(first, stops):
        first = first[: early[0] - 1]  # else the first worker would have stopped
    match = first_match(first + second, stops)
    assume(match is None or match[1] < len(first))  # else the second worker stops by itself
    legs = [[first], [second]] if whole else [list(first), list(second)]
    seen, stop = run(SeamStops(stops), legs)
    if match is None:
        assert (seen, stop) == (first + second, None)
    else:
        end = match[0]
        assert stop is not None
        assert (first + second)[:end].endswith(stop)
        assert seen == (first + second)[: end - len(stop)]


def test_nothing_is_held_back_without_need() -> None:
    stops = SeamStops(["END"])
    assert stops.push("hello E") == ("hello ", None)
    assert stops.push("x") == ("Ex", None)
    assert SeamStops([]).push("END") == ("END", None)


def test_stop_string_may_stay_in_the_text() -> None:
    assert run(SeamStops(["END"], include=True), [["a E"], ["ND b"]]) == ("a END", "END")


def test_over_three_legs() -> None:
    assert run(SeamStops(["END"]), [["a E"], ["N"], ["D b"]]) == ("a ", "END")


def test_matches_inside_a_leg_are_the_workers_affair() -> None:
    for first in ("x", "E"):
        seen = run(SeamStops(["END"], include=True), [[first], ["a END b"]])
        assert seen == (first + "a END b", None)
