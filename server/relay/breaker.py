"""A circuit breaker: the pure state machine of whether a worker is asked. Times are passed in.

    closed ──failures──> open ──back-off over──> half-open ──probe answered──> closed
                          ^                          │
                          └──────probe failed────────┘  (the next back-off is twice as long)

Requests go to workers whose breaker is closed. In half-open one probe is on its way, which is no
client's request.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True)
class BreakerPolicy:
    """When a breaker opens, and for how long (s)."""

    failures: int = 5
    """In a row."""
    window: int = 20
    """Latest outcomes that `share` is taken of, once there are as many."""
    share: float = 0.5
    """Of failures among them."""
    first_backoff: float = 1.0
    last_backoff: float = 30.0


class Breaker:
    """One worker's breaker. `jitter` gives numbers in [0, 1): a back-off is between half and
    all of its length, so that workers that fell together are not probed together."""

    def __init__(
        self, policy: BreakerPolicy | None = None, jitter: Callable[[], float] = random.random
    ) -> None:
        self._policy, self._jitter = policy or BreakerPolicy(), jitter
        self._state: State = "closed"
        self._row = 0
        self._latest: deque[bool] = deque(maxlen=self._policy.window)
        self._backoff = self._policy.first_backoff
        self._probe_at = 0.0

    @property
    def state(self) -> State:
        return self._state

    @property
    def probe_at(self) -> float:
        """When an open breaker may be probed."""
        return self._probe_at

    def succeeded(self) -> None:
        """A request was answered. Counts while closed: others began before it opened."""
        if self._state == "closed":
            self._row = 0
            self._latest.append(True)

    def failed(self, now: float) -> None:
        """A request failed by the worker's fault. Counts while closed."""
        if self._state != "closed":
            return
        self._row += 1
        self._latest.append(False)
        policy = self._policy
        full = len(self._latest) == policy.window
        bad = self._latest.count(False) >= policy.share * policy.window
        if self._row >= policy.failures or (full and bad):
            self._backoff = policy.first_backoff
            self._open(now)

    def begin_probe(self, now: float) -> bool:
        """Whether one probe is to be made now; it must be followed by `probed`."""
        if self._state != "open" or now < self._probe_at:
            return False
        self._state = "half_open"
        return True

    def probed(self, answered: bool, now: float) -> None:
        """How the probe went."""
        assert self._state == "half_open"
        if answered:
            self._state, self._row = "closed", 0
            self._latest.clear()
        else:
            self._backoff = min(2 * self._backoff, self._policy.last_backoff)
            self._open(now)

    def _open(self, now: float) -> None:
        self._state = "open"
        self._probe_at = now + self._backoff * (1 + self._jitter()) / 2
