"""The API keys that a running server knows: a copy of the table, brought up to date by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

from server.edge.keys import Key, KeysError, KeyStore, digest_of

REFRESH_SECONDS = 2.0
"""How long a key that was made or revoked elsewhere may go unnoticed."""
NOTE_EVERY = timedelta(minutes=1)
"""How often it is written down when keys were last used."""

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Keyring:
    """Finds the key of a secret without asking the database.

    While the database cannot be read the keys known before stay in force.
    """

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._by_digest: dict[str, Key] = {}
        self._used: dict[str, datetime] = {}
        self._noted = now()
        self._in_step = True

    def find(self, secret: str) -> Key | None:
        """The key that `secret` belongs to, if it counts now.

        Secrets are found by their SHA-256. How long a look-up takes could tell something about
        the digest of a guess, and from that nothing follows about any secret.
        """
        digest, now = digest_of(secret), self._now()
        key = self._by_digest.get(digest)
        if key is None or not key.accepts(digest, now):
            return None
        self._used[key.name] = now
        return key

    def load(self, keys: Iterable[Key]) -> None:
        """Know these keys and no others."""
        by_digest: dict[str, Key] = {}
        for key in keys:
            by_digest[key.digest] = key
            if key.old_digest is not None:
                by_digest[key.old_digest] = key
        self._by_digest = by_digest

    @asynccontextmanager
    async def following(
        self, store: KeyStore, every: float = REFRESH_SECONDS
    ) -> AsyncIterator[None]:
        """Keep up with `store`, looking every `every` seconds. Raises KeysError at the start."""
        self.load(await asyncio.to_thread(store.keys))
        task = asyncio.create_task(self._follow(store, every))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self._note(store)

    async def _follow(self, store: KeyStore, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            if self._now() - self._noted >= NOTE_EVERY:
                await self._note(store)
            try:
                self.load(await asyncio.to_thread(store.keys))
            except KeysError as error:
                if self._in_step:
                    log.error("%s; the API keys known so far stay in force", error)
                self._in_step = False
            else:
                self._in_step = True

    async def _note(self, store: KeyStore) -> None:
        """Write down when keys were last used."""
        used, self._used, self._noted = self._used, {}, self._now()
        if not used:
            return
        try:
            await asyncio.to_thread(store.note_used, used)
        except KeysError as error:
            log.warning("%s", error)
            self._used = used | self._used
