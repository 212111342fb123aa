"""Thoughts and calls in workers' deltas, well-formed and not."""

from __future__ import annotations

from typing import Any

import pytest

from server.api.deltas import CallDelta, calls_in, reasoning_in


def test_reasoning_has_two_names() -> None:
    assert reasoning_in({"reasoning": "a"}) == "a"
    assert reasoning_in({"reasoning": None, "reasoning_content": "b"}) == "b"
    assert reasoning_in({"reasoning": 3, "refusal": "no"}) == ""


def test_calls() -> None:
    first = {"index": 1, "id": "c", "type": "function", "function": {"name": "f"}}
    piece = {"index": 1, "function": {"name": None, "arguments": "{"}}
    assert list(calls_in({"tool_calls": [first, piece]})) == [
        CallDelta(1, "c", "f", ""),
        CallDelta(1, "", "", "{"),
    ]


@pytest.mark.parametrize("odd", [None, 3, {}, [None, 4], "x"])
def test_what_is_no_list_of_calls_is_none(odd: Any) -> None:
    assert list(calls_in({"tool_calls": odd})) == []


@pytest.mark.parametrize(
    "odd", [{}, {"index": "0"}, {"function": []}, {"function": {"arguments": {}}}]
)
def test_odd_calls_are_empty(odd: Any) -> None:
    assert list(calls_in({"tool_calls": [odd]})) == [CallDelta(0, "", "", "")]
