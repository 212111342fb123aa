"""The directory: which replicas answer where. Replicas announce themselves, orchestrators read it.

It keeps nothing: started anew, it is complete again after NEW_SECONDS, and does not answer before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

ANNOUNCE_SECONDS = 0.5
"""Pause between two announcements of a replica."""
NOTICE_SECONDS = 2.5
"""After which every orchestrator has seen that a replica has left: they look every second."""
NEW_SECONDS = 5.0
"""For which a directory may not have heard of everybody: announcements are seconds late where all
cores are busy."""
FORGET_SECONDS = 20.0
"""A replica that has been silent for so long is gone, with its node. Until then requests that it
gets fail at once or when they do not connect, and go on elsewhere; one that works and was forgotten
would be worse."""

NAME = "Directory"


class Directory:
    """A Serve deployment of one replica."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._since = clock, clock()
        self._heard: dict[tuple[str, str], float] = {}
        """When each (model, base URL) was last announced."""

    async def announce(self, model: str, url: str) -> None:
        """A replica of `model` answers at `url` (base URL without /v1)."""
        self._heard[model, url] = self._clock()

    async def leave(self, model: str, url: str) -> None:
        """It takes no new requests."""
        self._heard.pop((model, url), None)

    async def replicas(self) -> Mapping[str, tuple[str, ...]] | None:
        """The base URLs of each model's replicas; None while it does not know them all."""
        if self._clock() - self._since < NEW_SECONDS:
            return None
        oldest = self._clock() - FORGET_SECONDS
        self._heard = {key: heard for key, heard in self._heard.items() if heard >= oldest}
        found: dict[str, tuple[str, ...]] = {}
        for model, url in sorted(self._heard):
            found[model] = (*found.get(model, ()), url)
        return found
