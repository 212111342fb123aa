"""Limits on chat requests: how many at once in all, and how many requests and tokens a key has.

Each replica of the server counts for itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from server.edge.auth import key_of
from server.edge.keys import Key, Limits
from server.errors import Busy, RateLimited, TryLater
from server.seeing.accounts import account
from server.wire import error_response

METERED_PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}
)

Clock = Callable[[], float]
"""Seconds, from any beginning."""


class Bucket:
    """A token bucket: `per_minute` at first, refilled steadily, and overdrawn by what is charged
    afterwards."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._most, self._clock = per_minute, clock
        self._level, self._then = float(per_minute), clock()

    def wait(self) -> float:
        """Seconds until at least one is left; 0: there is one now."""
        self._refill()
        return max(0.0, (1 - self._level) * 60 / self._most)

    def charge(self, amount: int) -> None:
        self._refill()
        self._level -= amount

    def _refill(self) -> None:
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._then) * self._most / 60)
        self._then = now


@dataclass(frozen=True)
class Allowance:
    """What is left of one key's limits."""

    limits: Limits
    requests: Bucket | None
    tokens: Bucket | None

    @classmethod
    def of(cls, limits: Limits, clock: Clock) -> Allowance:
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        return cls(
            limits,
            Bucket(requests, clock) if requests else None,
            Bucket(tokens, clock) if tokens else None,
        )

    def check(self, name: str) -> None:
        """Raise RateLimited if nothing is left."""
        limits = self.limits
        for bucket, most, what in (
            (self.requests, limits.requests_per_minute, "requests"),
            (self.tokens, limits.tokens_per_minute, "tokens"),
        ):
            if bucket is not None and (wait := math.ceil(bucket.wait())) > 0:
                raise RateLimited(
                    f"the API key {name!r} has {most} {what} a minute; try again in {wait} s",
                    retry_after=wait,
                )


class Throttle:
    """Middleware: lets a chat request pass if there is room for it, and charges its key."""

    def __init__(self, app: ASGIApp, most: int, clock: Clock = time.monotonic) -> None:
        """`most`: chat requests that may be in flight, from their first byte to their last."""
        self._app, self._most, self._clock = app, most, clock
        self._in_flight = 0
        self._allowances: dict[str, Allowance] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in METERED_PATHS:
            await self._app(scope, receive, send)
            return
        key = key_of(scope)
        allowance = self._allowance(key) if key else None
        try:
            self._check(key, allowance)
        except TryLater as error:
            await error_response(error)(scope, receive, send)
            return
        await self._pass(scope, receive, send, allowance)

    def _check(self, key: Key | None, allowance: Allowance | None) -> None:
        """Raise Busy or RateLimited."""
        if self._in_flight >= self._most:
            raise Busy(
                f"{self._most} requests are in flight, and the server takes no more; try again in"
                " a moment",
                retry_after=1,
            )
        if key is not None and allowance is not None:
            allowance.check(key.name)

    async def _pass(
        self, scope: Scope, receive: Receive, send: Send, allowance: Allowance | None
    ) -> None:
        if allowance and allowance.requests:
            allowance.requests.charge(1)
        self._in_flight += 1
        with account() as used:
            try:
                await self._app(scope, receive, send)
            finally:
                self._in_flight -= 1
                if allowance and allowance.tokens:
                    body_bytes = scope.get("state", {}).get("body_bytes", 0)
                    allowance.tokens.charge(used.tokens(body_bytes))

    def _allowance(self, key: Key) -> Allowance | None:
        """What is left to `key`; a key whose limits were changed starts afresh."""
        if key.limits == Limits():
            return None
        known = self._allowances.get(key.name)
        if known is None or known.limits != key.limits:
            known = self._allowances[key.name] = Allowance.of(key.limits, self._clock)
        return known
