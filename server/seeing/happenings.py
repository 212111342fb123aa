"""What happens to workers besides plain success, for observers (`observe.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from server.relay.breaker import State
from server.relay.snapshot import Endpoint


@dataclass(frozen=True)
class Retried:
    """A replica failed before its first token, and another one is asked. `model` is the target's
    name ("meta" or the expert's), `reason` the class of the error."""

    model: str
    reason: str


@dataclass(frozen=True)
class Hedged:
    """A replica was slow to begin, so that a second one was asked. `won`: the second was first."""

    model: str
    won: bool


@dataclass(frozen=True)
class BreakerChanged:
    """A worker's breaker changed its state."""

    endpoint: Endpoint
    state: State
