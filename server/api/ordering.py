"""Parts of an answer one after the other, for APIs whose clients take them so.

A worker may let calls of tools alternate, and write text between two pieces of one call. In blocks
and items each part ends before the next begins: some clients go by that order, not by the index.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from server.api.deltas import CallDelta, calls_in, reasoning_in
from server.relay.events import RawDelta, TextDelta


@dataclass(frozen=True)
class Thought:
    """More of what the model thinks."""

    text: str


Piece = TextDelta | Thought | CallDelta


class Ordering:
    """Gives pieces on so that those of one part are together, each with whether it begins a part.
    What comes while a call is not whole is held back until it is, or until the answer ends."""

    def __init__(self) -> None:
        self._first: Piece | None = None
        """Of the part that is open."""
        self._arguments = ""
        """Of the open call, so far."""
        self._ended: dict[int, str] = {}
        """Index and id of calls that are over: nothing is added to them."""
        self._held: list[Piece] = []

    def add(self, event: TextDelta | RawDelta) -> Iterator[tuple[bool, Piece]]:
        """The pieces of `event`, and those that were held back, as far as it is their turn."""
        self._held += _pieces(event)
        while self._held:
            mine = self._belongs(self._held[0])
            if not mine and self._is_cut():
                yield from self._of_the_open()
                if self._is_cut():
                    return
            else:
                yield from self._give(self._held.pop(0))

    def rest(self) -> Iterator[tuple[bool, Piece]]:
        """What is still held back, at the end of the answer."""
        while self._held:
            yield from self._give(self._held.pop(0))
            yield from self._of_the_open()

    def _is_cut(self) -> bool:
        """Whether a call is open whose arguments are not whole."""
        return isinstance(self._first, CallDelta) and object_in(self._arguments) is None

    def _belongs(self, piece: Piece) -> bool:
        """Whether `piece` is more of the open part. Some servers give every call the index 0."""
        first = self._first
        if isinstance(first, CallDelta) and isinstance(piece, CallDelta):
            return piece.index == first.index and piece.id in ("", first.id)
        return type(piece) is type(first)

    def _of_the_open(self) -> Iterator[tuple[bool, Piece]]:
        """What is held back of the open call."""
        mine = [piece for piece in self._held if self._belongs(piece)]
        self._held = [piece for piece in self._held if not self._belongs(piece)]
        for piece in mine:
            yield from self._give(piece)

    def _give(self, piece: Piece) -> Iterator[tuple[bool, Piece]]:
        begins = not self._belongs(piece)
        if begins:
            if isinstance(piece, CallDelta) and self._is_over(piece):
                return
            if isinstance(self._first, CallDelta):
                self._ended[self._first.index] = self._first.id
            self._first, self._arguments = piece, ""
        if isinstance(piece, CallDelta):
            self._arguments += piece.arguments
        yield begins, piece

    def _is_over(self, piece: CallDelta) -> bool:
        return piece.index in self._ended and piece.id in ("", self._ended[piece.index])


def object_in(arguments: str) -> dict[str, Any] | None:
    """Arguments of a call as an object; None if they were cut, or are none."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _pieces(event: TextDelta | RawDelta) -> Iterator[Piece]:
    if isinstance(event, TextDelta):
        yield event
        return
    if thought := reasoning_in(event.fields):
        yield Thought(thought)
    yield from calls_in(event.fields)
