"""Connections to workers: HTTP/1.1 as streamed answers need it, kept from one request to the next.

httptools parses. What is here is what a general client does for every request and every chunk of
it, and more: with one, half of a busy orchestrator's time goes into it.
"""

from __future__ import annotations

import asyncio
import base64
import math
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple, Self, cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from server.edge.addresses import Addresses

KEEP_SECONDS = 4.0
"""How long a connection waits for its next request: uvicorn, and so vLLM, closes it after 5."""
LOOK_SECONDS = 30.0
"""The longest time between two looks at the clock."""
MOST_WAITING = 256 * 1024
"""Bytes of an answer that wait to be read; then its worker waits."""
MOST_OVERHEAD = 64 * 1024
"""Bytes in a row that are no part of a body: of headers, say."""
DELIMITERS = (b"content-length", b"transfer-encoding")


class CannotConnect(OSError):
    """Nothing that may be asked answers at a worker's address."""


class BrokenAnswer(OSError):
    """What a worker sent is no HTTP, or it closed the connection too early."""


class Origin(NamedTuple):
    secure: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class _Target:
    """What a URL says: whom to connect to, and how a POST there begins."""

    origin: Origin
    head: bytes

    @classmethod
    @lru_cache(maxsize=1024)
    def of(cls, url: str) -> _Target:
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        host = host if host.isascii() else host.encode("idna").decode()
        shown = f"[{host}]" if ":" in host else host
        shown += f":{parts.port}" if parts.port else ""
        path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        head = f"POST {path} HTTP/1.1\r\nHost: {shown}\r\n{_authorization(parts)}"
        return cls(Origin(secure, host, parts.port or (443 if secure else 80)), head.encode())


def _authorization(url: SplitResult) -> str:
    """For an operator's own worker whose URL has a name and a password."""
    if url.username is None:
        return ""
    login = f"{unquote(url.username)}:{unquote(url.password or '')}"
    secret = base64.b64encode(login.encode()).decode()
    return f"Authorization: Basic {secret}\r\n"


class Connections:
    """All connections to workers: as many as there are requests."""

    def __init__(self, addresses: Addresses | None = None) -> None:
        """With `addresses` it connects to permitted ones only."""
        self._addresses = addresses
        self._idle: dict[Origin, deque[Connection]] = {}
        """The one used last is at the end."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for kept in self._idle.values():
            for connection in tuple(kept):
                connection.close()

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        connect: float,
        silence: float,
        total: float | None = None,
    ) -> Connection:
        """Send a request. Whoever reads its answer calls `release` at last, in every case.

        `connect` and `total` are the time to connect and for everything (s). `silence`: see
        Connection. Raises TimeoutError and CannotConnect.
        """
        target = _Target.of(url)
        connection = self._take(target.origin)
        if connection is None:
            connection = await self._open(target.origin, connect)
        named = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        rest = f"{named}Content-Length: {len(body)}\r\n\r\n".encode("ascii")
        connection.ask(b"".join((target.head, rest, body)), silence, total)
        return connection

    def _take(self, origin: Origin) -> Connection | None:
        """The connection that was used last, unless it is too old."""
        kept = self._idle.get(origin)
        while kept:
            connection = kept.pop()
            if connection.fresh:
                return connection
            connection.close()
        return None

    def _close_old(self) -> None:
        """Those to workers that are asked no more, whose machines may be gone without a word."""
        for kept in self._idle.values():
            while kept and not kept[0].fresh:
                kept.popleft().close()

    async def _open(self, origin: Origin, seconds: float) -> Connection:
        self._close_old()
        loop, kept = asyncio.get_running_loop(), self._idle.setdefault(origin, deque())
        make = partial(Connection, loop, kept)
        tls: dict[str, Any] = {"ssl": _tls()} if origin.secure else {}
        try:
            async with asyncio.timeout(seconds):
                if self._addresses is None:
                    _, opened = await loop.create_connection(make, origin.host, origin.port, **tls)
                    return opened
                sock = await self._addresses.connect(origin.host, origin.port)
                if tls:
                    tls["server_hostname"] = origin.host
                _, opened = await loop.create_connection(make, sock=sock, **tls)
                return opened
        except TimeoutError:
            raise
        except OSError as error:
            raise CannotConnect(str(error)) from error


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class Connection(asyncio.Protocol):
    """One connection, and the answer that is coming on it.

    If its worker is silent for `silence` seconds (may be changed in the middle) while somebody
    could read, or `total` seconds are over, the answer fails with TimeoutError.
    """

    _transport: asyncio.Transport
    _parser: HttpResponseParser | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, kept: deque[Connection]) -> None:
        """`kept`: where it waits for its next request."""
        self._loop, self._kept = loop, kept
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._asked = 0
        """Requests that were sent on it."""

    # ------------------------------------------------------------ one request

    def ask(self, request: bytes, silence: float, total: float | None) -> None:
        """Send a request; what is left of the one before is forgotten."""
        self._asked += 1
        self.status = 0
        """Of the answer; 0: there is none yet."""
        self._parser = HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._waiting = self._overhead = 0
        self._interim = self._delimited = self._whole = self._keep = self._paused = False
        self._answered = False
        self._error: BaseException | None = None
        self._heard = self._loop.time()
        self._end = math.inf if total is None else self._heard + total
        self.limit_silence(silence)
        self._transport.write(request)

    def limit_silence(self, seconds: float) -> None:
        """How long the worker may be silent from now on (s)."""
        self._silence = seconds
        due = min(self._end, self._heard + seconds)
        if self._timer is None or due < self._timer.when():
            self._watch(self._loop.time())

    async def head(self) -> int:
        """Wait for the answer to begin; its status. Raises as `read`."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self.status

    async def read(self) -> bytes:
        """Bytes of the body as they come; b"" at its end.

        Raises TimeoutError, BrokenAnswer, another OSError, or what `fail` was told.
        """
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._whole:
                return b""
            await self._wait()
        data, self._parts, self._waiting = b"".join(self._parts), [], 0
        if self._paused:
            self._paused, self._heard = False, self._loop.time()
            self._transport.resume_reading()
        return data

    @property
    def at_end(self) -> bool:
        """Whether all of the body was read."""
        return self._whole and not self._parts

    @property
    def stale(self) -> bool:
        """Whether it was closed when this request came to use it again, without a byte of an
        answer. Its worker has hardly seen the request, and can be asked on another connection."""
        unseen = self._asked > 1 and not self._answered
        return unseen and isinstance(self._error, BrokenAnswer | ConnectionError)

    def fail(self, error: BaseException) -> None:
        """End the answer: where it is read, `error` is raised."""
        if self._error is None and not self._whole:
            self._error = error
            self._wake()

    def release(self) -> None:
        """The answer is wanted no more. The connection is used again if it came to its end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._parser, self._parts = None, []
        if self._whole and self._keep and not self._paused and not self._transport.is_closing():
            self._idle_since = self._loop.time()
            self._kept.append(self)
        else:
            self.close()

    # ------------------------------------------------------------ between requests

    @property
    def fresh(self) -> bool:
        """Whether a kept connection can be used: not when its worker may be about to close it."""
        old = self._loop.time() - self._idle_since > KEEP_SECONDS
        return not old and not self._transport.is_closing()

    def close(self) -> None:
        self._transport.abort()

    # ------------------------------------------------------------ what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            self.close()  # nobody asked
            return
        self._answered = True
        self._heard, before = self._loop.time(), self._waiting
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._break(f"no HTTP/1.1: {error}")
            return
        self._overhead = self._overhead + len(data) if self._waiting == before else 0
        if self._overhead > MOST_OVERHEAD:
            self._break("headers without end")
        elif self._waiting > MOST_WAITING and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        if self._parser is not None and self.status and not self._delimited:
            self._whole = True  # such a body ends with the connection
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        if self._parser is not None:
            self.fail(error or BrokenAnswer("the connection was closed before the end"))
        elif self in self._kept:
            self._kept.remove(self)

    # ------------------------------------------------------------ what the parser says

    def on_message_begin(self) -> None:
        self._keep = False  # also for what comes after the answer, unasked

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in DELIMITERS:
            self._delimited = True

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        self._interim = status < 200
        if not self._interim and not self._whole:
            self.status = status

    def on_body(self, body: bytes) -> None:
        if not self._whole:
            self._parts.append(body)
            self._waiting += len(body)

    def on_message_complete(self) -> None:
        if self._interim or self._whole:
            return
        assert self._parser is not None
        self._whole, self._keep = True, self._parser.should_keep_alive()

    # ------------------------------------------------------------ small things

    def _break(self, why: str) -> None:
        self.fail(BrokenAnswer(why))
        self.close()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch(self, now: float) -> None:
        """Look again when the answer could have been silent for too long, and soon enough that
        the timer seldom has to be set anew: that costs more than a read."""
        if self._timer is not None:
            self._timer.cancel()
        since = now if self._paused else self._heard
        when = min(self._end, since + self._silence, now + LOOK_SECONDS)
        self._timer = self._loop.call_at(max(when, now), self._look)

    def _look(self) -> None:
        now = self._loop.time()
        silent = not self._paused and now >= self._heard + self._silence
        if self._whole:
            return
        if silent or now >= self._end:
            self.fail(TimeoutError())
        else:
            self._watch(now)
