"""Parts of an answer come one after the other, whatever order their worker chose."""

from __future__ import annotations

from typing import Any

from server.api.deltas import CallDelta
from server.api.ordering import Ordering, Piece, Thought
from server.relay.events import RawDelta, TextDelta


def call(index: int, arguments: str, name: str = "") -> RawDelta:
    """The first piece of a call has a name, and an id."""
    fields: dict[str, Any] = {"index": index, "function": {"name": name, "arguments": arguments}}
    return RawDelta({"tool_calls": [fields | ({"id": f"id-{name}"} if name else {})]})


def shown(begins: bool, piece: Piece) -> str:
    """A piece as text, with a mark where a part begins."""
    match piece:
        case TextDelta():
            text = piece.text
        case Thought():
            text = f"({piece.text})"
        case CallDelta():
            text = f"{piece.name}{piece.arguments}"
    return f"|{text}" if begins else text


def ordered(*events: TextDelta | RawDelta) -> tuple[str, str]:
    """What was given on at once, and at the end."""
    ordering = Ordering()
    at_once = "".join(shown(*given) for event in events for given in ordering.add(event))
    return at_once, "".join(shown(*given) for given in ordering.rest())


def test_parts_that_are_in_order_are_given_on_at_once() -> None:
    events = [
        RawDelta({"reasoning": "h"}),
        RawDelta({"reasoning": "m"}),
        TextDelta("a"),
        TextDelta("b"),
        call(0, "{", "f"),
        call(0, "}"),
        call(1, "{}", "g"),
        TextDelta("c"),
    ]
    assert ordered(*events) == ("|(h)(m)|ab|f{}|g{}|c", "")


def test_text_in_a_call_waits_until_the_call_is_whole() -> None:
    events = [call(0, '{"a":', "f"), TextDelta("x"), call(0, "1"), TextDelta("y"), call(0, "}")]
    assert ordered(*events) == ('|f{"a":1}|xy', "")


def test_text_after_a_call_that_never_gets_whole_comes_at_the_end() -> None:
    assert ordered(call(0, '{"a":', "f"), TextDelta("x")) == ('|f{"a":', "|x")


def test_calls_that_alternate_are_told_apart() -> None:
    events = [call(0, "{", "f"), call(1, "{", "g"), call(0, "}"), call(2, "{}", "h"), call(1, "}")]
    assert ordered(*events) == ("|f{}|g{}|h{}", "")
    assert ordered(call(0, "a", "f"), call(1, "x", "g"), call(0, "b"), call(1, "y")) == (
        "|fab",
        "|gxy",
    )


def test_a_server_that_gives_every_call_the_index_0_is_understood() -> None:
    assert ordered(call(0, "{}", "f"), call(0, "{}", "g")) == ("|f{}|g{}", "")


def test_nothing_is_added_to_a_call_that_is_over() -> None:
    assert ordered(call(0, "{}", "f"), call(1, "{", "g"), call(0, "\n"), call(1, "}")) == (
        "|f{}|g{}",
        "",
    )
