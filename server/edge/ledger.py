"""Where limits are counted: in a process' own memory, or in memory that several processes share."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Protocol

from server.edge.keys import Key, Limits

MOST_PROCESSES = 64
ROWS = 4096
"""Keys with limits that a shared ledger knows; of more, those used last."""
WIDTH, NEIGHBOURS = 5, 8
"""Numbers of a row: whose it is, and its levels. Rows that a key may have."""


class Levels(Protocol):
    """Four numbers, two for each `Bucket` of a key; zeros at first."""

    def __getitem__(self, at: int, /) -> float: ...

    def __setitem__(self, at: int, number: float, /) -> None: ...


class Ledger(Protocol):
    """What is counted. Who looks and then changes something does so within `locked`."""

    def locked(self) -> AbstractContextManager[None]: ...

    def in_flight(self) -> int:
        """Requests in flight, in all processes."""
        ...

    def move(self, by: int) -> None:
        """So many more requests are in flight in this process."""
        ...

    def levels(self, key: Key) -> Levels:
        """Those of a key; of one whose limits were changed, new ones."""
        ...


class OwnLedger:
    """Of a process alone."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._levels: dict[str, tuple[Limits, Levels]] = {}

    def locked(self) -> AbstractContextManager[None]:
        return nullcontext()

    def in_flight(self) -> int:
        return self._in_flight

    def move(self, by: int) -> None:
        self._in_flight += by

    def levels(self, key: Key) -> Levels:
        known = self._levels.get(key.name)
        if known is None or known[0] != key.limits:
            known = self._levels[key.name] = key.limits, [0.0] * (WIDTH - 1)
        return known[1]


class SharedLedger:
    """Numbers in an unnamed file that processes of one server have mapped.

    First the requests in flight, a number for each process, then the rows. A row is found as in a
    cache: at one of NEIGHBOURS places that its name's hash says; a new one takes the free one or
    the one that was used longest ago. The file's lock is let go when its process ends in any way.
    """

    def __init__(self, descriptor: int, place: int) -> None:
        """`place`: which of the processes this is."""
        self.descriptor, self._place = descriptor, place
        self._numbers = memoryview(mmap.mmap(descriptor, _SIZE)).cast("d")

    @classmethod
    def make(cls) -> SharedLedger:
        """A new one, for the first process; others get its descriptor."""
        with tempfile.TemporaryFile(prefix="trivium-") as file:
            file.write(bytes(_SIZE))
            file.flush()
            return cls(os.dup(file.fileno()), 0)

    @contextmanager
    def locked(self) -> Iterator[None]:
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def in_flight(self) -> int:
        return int(sum(self._numbers[:MOST_PROCESSES]))

    def move(self, by: int) -> None:
        self._numbers[self._place] += by

    def forget(self, place: int) -> None:
        """A process has ended, and with it its requests."""
        self._numbers[place] = 0.0

    def levels(self, key: Key) -> Levels:
        name, numbers = _number(key.name, key.limits), self._numbers
        first = int(name) % ROWS
        rows = [MOST_PROCESSES + (first + i) % ROWS * WIDTH for i in range(NEIGHBOURS)]
        row = next((row for row in rows if numbers[row] == name), None)
        if row is None:
            # The second number of a row's buckets is when it was used; 0: never.
            row = min(rows, key=lambda row: max(numbers[row + 2], numbers[row + 4]))
            numbers[row] = name
            for i in range(1, WIDTH):
                numbers[row + i] = 0.0
        return numbers[row + 1 : row + WIDTH]


_SIZE = 8 * (MOST_PROCESSES + ROWS * WIDTH)


@lru_cache(maxsize=ROWS)
def _number(name: str, limits: Limits) -> float:
    """A number that stands for a key and its limits; 48 bits, so that a float holds it."""
    digest = hashlib.sha256(f"{name} {limits}".encode()).digest()
    return float(int.from_bytes(digest[:6]) or 1)
