"""Whose turn it is: which experts of a bank may run in a step. A state machine without a clock.

A bank has S places. An expert that is wanted and has no place waits in a queue, first come first
served. A free place, or else the place that has gone unused longest, goes to the queue's head at
once. If all holders are wanted, the place of the one whose turn has lasted longest goes to it, but
no sooner than a full turn after that turn began; that one then waits from now.

- An expert that is the p-th of the queue has a place after at most ceil(p / S) · (turn + gap)
  seconds, where `gap` is the longest time between two decisions. If W experts are wanted when it
  begins to wait, p is at most W - S.
- A place is taken from an expert that is still wanted at most once a turn, so that happens at most
  S times in any `turn_seconds`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """What has happened since the start, and how things stand. An expert that gets a place at once
    has waited 0 seconds; one that gives up has waited until then.

    Attributes:
        changes: how often an expert has been given a place.
        taken: how many of these places were taken from an expert that was still wanted.
        waits: how many waits have ended.
        waited_seconds: their sum.
        longest_seconds: the longest of them.
        waiting: how many experts wait now.
        oldest_seconds: how long the one that has waited longest has waited; 0 if none does.
    """

    changes: int = 0
    taken: int = 0
    waits: int = 0
    waited_seconds: float = 0.0
    longest_seconds: float = 0.0
    waiting: int = 0
    oldest_seconds: float = 0.0


@dataclass
class _Holder:
    """One that has a place: since when it has had it and been wanted without a pause, when it was
    last wanted, and whether it is."""

    since: float
    used: float
    wanted: bool = True


class Turns:
    """Gives `places` places to experts, numbered as the caller likes."""

    def __init__(self, places: int, turn_seconds: float) -> None:
        """Raises ValueError if there is no place, or a turn is not longer than 0 seconds."""
        if places < 1 or not turn_seconds > 0:
            raise ValueError(
                f"turns need at least 1 place and more than 0 seconds, not {places} places"
                f" and {turn_seconds} seconds"
            )
        self._places = places
        self._turn = turn_seconds
        self._holders: dict[int, _Holder] = {}
        self._queue: dict[int, float] = {}  # since when each waits; the first has waited longest
        self._changes = self._taken = self._waits = 0
        self._waited = self._longest = 0.0

    @property
    def queue(self) -> tuple[int, ...]:
        """The experts that wait, the next one to get a place first."""
        return tuple(self._queue)

    def decide(self, now: float, wanted: Iterable[int]) -> frozenset[int]:
        """The experts that may run from `now` on, at most as many as there are places.

        `now` is in seconds and never less than before. `wanted` are the experts that have anything
        to do; those that begin to wait together queue up in this order.
        """
        wanted = dict.fromkeys(wanted)
        self._note_holders(now, wanted)
        for expert in self._queue.keys() - wanted:
            self._end_wait(expert, now)
        for expert in wanted:
            if expert not in self._holders:
                self._queue.setdefault(expert, now)
        for expert in tuple(self._queue):
            if not self._has_room(now):
                break
            self._end_wait(expert, now)
            self._holders[expert] = _Holder(since=now, used=now)
            self._changes += 1
        return frozenset(self._holders)

    def figures(self, now: float) -> Figures:
        """What has happened until `now`."""
        oldest = next(iter(self._queue.values()), now)
        return Figures(
            self._changes,
            self._taken,
            self._waits,
            self._waited,
            self._longest,
            len(self._queue),
            now - oldest,
        )

    def _note_holders(self, now: float, wanted: dict[int, None]) -> None:
        for expert, holder in self._holders.items():
            if expert in wanted:
                if not holder.wanted:
                    holder.since = now  # nobody wanted the place meanwhile: no turn has gone by
                holder.used = now
            holder.wanted = expert in wanted

    def _has_room(self, now: float) -> bool:
        """Whether there is a free place, made free if it may be."""
        if len(self._holders) < self._places:
            return True
        idle = [expert for expert, holder in self._holders.items() if not holder.wanted]
        if idle:
            del self._holders[min(idle, key=lambda expert: self._holders[expert].used)]
            return True
        longest = min(self._holders, key=lambda expert: self._holders[expert].since)
        if now - self._holders[longest].since < self._turn:
            return False
        del self._holders[longest]
        self._queue[longest] = now
        self._taken += 1
        return True

    def _end_wait(self, expert: int, now: float) -> None:
        waited = now - self._queue.pop(expert)
        self._waits += 1
        self._waited += waited
        self._longest = max(self._longest, waited)
