"""What a request may use: an immutable snapshot of the live models, and who still holds one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
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
    """Owner of the current snapshot; counts the requests that still use each token id."""

    def __init__(self) -> None:
        self._current = Snapshot(version=0)
        self._tokens_in_use: Counter[int] = Counter()

    @property
    def current(self) -> Snapshot:
        return self._current

    def publish(self, meta: tuple[Endpoint, ...], experts: tuple[LiveExpert, ...]) -> Snapshot:
        """Replace the snapshot for requests that start from now on."""
        self._current = Snapshot(self._current.version + 1, meta, experts)
        return self._current

    @contextmanager
    def lease(self) -> Iterator[Snapshot]:
        """The current snapshot, for as long as one request runs."""
        snapshot = self._current
        tokens = [expert.token_id for expert in snapshot.experts]
        for token in tokens:
            self._tokens_in_use[token] += 1
        try:
            yield snapshot
        finally:
            for token in tokens:
                self._tokens_in_use[token] -= 1

    def token_in_use(self, token_id: int) -> bool:
        """Whether a running request could still meet `token_id`; its slot must not be reused."""
        return self._tokens_in_use[token_id] > 0
