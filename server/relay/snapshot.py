"""What a request may use: an immutable snapshot of the live models, and who still holds one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """Where one model answers: an OpenAI-compatible server and the model's name there."""

    base_url: str
    """Up to and including `/v1`, without a trailing slash."""
    model: str
    max_model_len: int | None = None
    """Context length in that model's own tokens, where known."""
    asleep: bool = False
    """It stands for replicas that are there once somebody asks for one."""
    key_env: str | None = None
    """Environment variable with the API key that it wants; the key itself is kept nowhere."""

    @property
    def authorization(self) -> dict[str, str]:
        """The header that it wants, if it wants a key and there is one."""
        key = os.environ.get(self.key_env, "").strip() if self.key_env else ""
        return {"Authorization": f"Bearer {key}"} if key else {}


@dataclass(frozen=True)
class LiveExpert:
    """An expert that is healthy, fitted and pushed to the meta workers."""

    name: str
    token_id: int
    endpoints: tuple[Endpoint, ...]
    """Its replicas; at least one."""


@dataclass(frozen=True)
class Snapshot:
    """The models one request sees from its first event to its last."""

    version: int
    meta: tuple[Endpoint, ...] = ()
    """The meta LLM's replicas; none until one is healthy and has the head."""
    experts: tuple[LiveExpert, ...] = ()

    def by_token(self, token_id: int) -> LiveExpert | None:
        return next((e for e in self.experts if e.token_id == token_id), None)

    def by_name(self, name: str) -> LiveExpert | None:
        return next((e for e in self.experts if e.name == name), None)


class SnapshotHolder:
    """Owner of the current snapshot; counts the requests that still use each token id, and each
    version."""

    def __init__(self) -> None:
        self._current = Snapshot(version=0)
        self._tokens_in_use: Counter[int] = Counter()
        self._requests: Counter[int] = Counter()
        """By version; none that is 0."""
        self._listeners: list[Callable[[], None]] = []
        self._others: list[Callable[[int], bool]] = []

    @property
    def current(self) -> Snapshot:
        return self._current

    def versions(self) -> frozenset[int]:
        """The current version, and those that requests still run with."""
        return frozenset((self._current.version, *self._requests))

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `versions` may have changed."""
        self._listeners.append(listener)

    def ask_also(self, in_use: Callable[[int], bool]) -> None:
        """Let `token_in_use` count the requests of other processes."""
        self._others.append(in_use)

    def publish(self, meta: tuple[Endpoint, ...], experts: tuple[LiveExpert, ...]) -> Snapshot:
        """Replace the snapshot for requests that start from now on."""
        self.follow(Snapshot(self._current.version + 1, meta, experts))
        return self._current

    def follow(self, snapshot: Snapshot) -> None:
        """The same with a snapshot that another process has published."""
        self._current = snapshot
        self._notify()

    @contextmanager
    def lease(self) -> Iterator[Snapshot]:
        """The current snapshot, for as long as one request runs."""
        snapshot = self._current
        tokens = [expert.token_id for expert in snapshot.experts]
        for token in tokens:
            self._tokens_in_use[token] += 1
        self._requests[snapshot.version] += 1
        try:
            yield snapshot
        finally:
            for token in tokens:
                self._tokens_in_use[token] -= 1
            self._leave(snapshot.version)

    def token_in_use(self, token_id: int) -> bool:
        """Whether a running request could still meet `token_id`; its slot must not be reused."""
        here = self._tokens_in_use[token_id] > 0
        return here or any(in_use(token_id) for in_use in self._others)

    def _leave(self, version: int) -> None:
        self._requests[version] -= 1
        if not self._requests[version]:
            del self._requests[version]
            if version != self._current.version:
                self._notify()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()
