"""What the routes of the API share: who answers, and how the models are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import Request

from server.relay.counting import TokenCounter
from server.relay.dispatch import Dispatcher
from server.relay.snapshot import SnapshotHolder
from server.workers.draining import Drain


@dataclass(frozen=True)
class Health:
    """States in words, e.g. "starting", "live", "failed". `experts`: every registered one."""

    meta: str
    experts: Mapping[str, str] = field(default_factory=dict)


class StatusProvider(Protocol):
    """Who knows how the workers are."""

    def health(self) -> Health: ...


@dataclass(frozen=True)
class Services:
    """What the routes need; `app.state.services` holds it."""

    snapshots: SnapshotHolder
    dispatcher: Dispatcher
    status: StatusProvider
    version: str
    started: int
    """Unix time (s); the models' `created`."""
    counter: TokenCounter
    drain: Drain = field(default_factory=Drain)


def services_of(request: Request) -> Services:
    """The `Services` that the application holds."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services
