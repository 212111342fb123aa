"""Limits on chat requests: how many at once in all, and how many requests and tokens a key has.

The processes of one server count together (`ledger.py`); each replica of the server for itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from server.edge.auth import key_of
from server.edge.keys import Key, Limits
from server.edge.ledger import Ledger, Levels, OwnLedger
from server.errors import Busy, RateLimited, TryLater
from server.seeing.accounts import account
from server.wire import error_response

METERED_PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}
    | {"/v1/messages/count_tokens"}
)

Clock = Callable[[], float]
"""Seconds, from any beginning."""


class Bucket:
    """A token bucket: `per_minute` at first, refilled steadily, and overdrawn by what is charged
    afterwards."""

    def __init__(self, per_minute: int, clock: Clock, levels: Levels, at: int = 0) -> None:
        """Its two numbers, how much is left and when that was so, stand in `levels` at `at`; zeros
        if it was never used."""
        self._most, self._clock = per_minute, clock
        self._levels, self._left, self._then = levels, at, at + 1
        if levels[self._left] == levels[self._then] == 0:
            levels[self._left], levels[self._then] = float(per_minute), clock()

    def wait(self) -> float:
        """Seconds until at least one is left; 0: there is one now."""
        self._refill()
        return max(0.0, (1 - self._levels[self._left]) * 60 / self._most)

    def charge(self, amount: int) -> None:
        self._refill()
        self._levels[self._left] -= amount

    def _refill(self) -> None:
        now, levels = self._clock(), self._levels
        refilled = levels[self._left] + (now - levels[self._then]) * self._most / 60
        levels[self._left], levels[self._then] = min(self._most, refilled), now


@dataclass(frozen=True)
class Allowance:
    """What is left of one key's limits."""

    limits: Limits
    requests: Bucket | None
    tokens: Bucket | None

    @classmethod
    def of(cls, limits: Limits, clock: Clock, levels: Levels) -> Allowance:
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        return cls(
            limits,
            Bucket(requests, clock, levels) if requests else None,
            Bucket(tokens, clock, levels, 2) if tokens else None,
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

    def __init__(
        self,
        app: ASGIApp,
        most: int,
        clock: Clock = time.monotonic,
        ledger: Ledger | None = None,
    ) -> None:
        """`most`: chat requests that may be in flight, from their first byte to their last. The
        clock is the same in all processes that share the ledger."""
        self._app, self._most, self._clock = app, most, clock
        self._ledger = ledger or OwnLedger()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in METERED_PATHS:
            await self._app(scope, receive, send)
            return
        key = key_of(scope)
        try:
            with self._ledger.locked():
                self._enter(key)
        except TryLater as error:
            await error_response(error)(scope, receive, send)
            return
        with account() as used:
            try:
                await self._app(scope, receive, send)
            finally:
                tokens = used.tokens(scope.get("state", {}).get("body_bytes", 0))
                with self._ledger.locked():
                    self._leave(key, tokens)

    def _enter(self, key: Key | None) -> None:
        """Raise Busy or RateLimited, or count a request."""
        if self._ledger.in_flight() >= self._most:
            raise Busy(
                f"{self._most} requests are in flight, and the server takes no more; try again in"
                " a moment",
                retry_after=1,
            )
        if key is not None and (allowance := self._allowance(key)):
            allowance.check(key.name)
            if allowance.requests:
                allowance.requests.charge(1)
        self._ledger.move(1)

    def _leave(self, key: Key | None, tokens: int) -> None:
        self._ledger.move(-1)
        if key is not None and (allowance := self._allowance(key)) and allowance.tokens:
            allowance.tokens.charge(tokens)

    def _allowance(self, key: Key) -> Allowance | None:
        """What is left to `key`; a key whose limits were changed starts afresh."""
        if key.limits == Limits():
            return None
        return Allowance.of(key.limits, self._clock, self._ledger.levels(key))
