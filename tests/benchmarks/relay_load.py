"""The load of `trivium bench relay`: streams asked for one after the other by so many clients.

Raw asyncio, so that the load is not what is measured. Every stream is checked: status 200, the text
of the stub, one finish reason, one `[DONE]` at the end. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

import httptools
import uvloop

from tests.benchmarks.relay_text import ANSWER, CHUNKS

CONTENT = re.compile(rb'"content": ?"((?:[^"\\]|\\.)+)"')
FINISH = re.compile(rb'"finish_reason": ?"')
SEEN_ERRORS = 3
"""Messages of errors that are told."""


@dataclass
class Result:
    """What came of one load. `first` are the seconds to the first text of each stream, `all` the
    streams with those that do not count: of the warm-up, and after the end."""

    streams: int = 0
    all: int = 0
    errors: int = 0
    seconds: float = 0.0
    first: list[float] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One connection that asks for one stream at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    async def ask(self, request: bytes) -> tuple[int, bytes, float]:
        """Status, body, and seconds to the first text. Raises ConnectionError."""
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._began, self._first = time.perf_counter(), 0.0
        self._over = self._loop.create_future()
        self._transport.write(request)
        await self._over
        return self._parser.get_status_code(), b"".join(self._parts), self._first

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if not self._first and CONTENT.search(data):
            self._first = time.perf_counter() - self._began

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        assert self._over is not None
        if not self._over.done():
            self._over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(error or ConnectionError("the connection was closed"))


def fault(status: int, body: bytes) -> str | None:
    """What is wrong with an answer, in words."""
    if status != 200:
        return f"status {status}: {body[:200]!r}"
    texts = CONTENT.findall(body)
    if json.loads(b'"' + b"".join(texts) + b'"') != ANSWER:
        return f"another text: {b''.join(texts)[:200]!r}"
    if len(texts) != CHUNKS:
        return f"{len(texts)} chunks instead of {CHUNKS}"
    if len(FINISH.findall(body)) != 1:
        return "not one finish reason"
    if body.count(b"data: [DONE]") != 1 or not body.rstrip().endswith(b"data: [DONE]"):
        return "not one [DONE], at the end"
    return None


def request(url: str, question: str) -> bytes:
    """The bytes of a streaming chat request."""
    parts = urlsplit(url)
    body = json.dumps(
        {
            "model": "trivium",
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    head = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL that names both."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def load(url: str, question: str, clients: int, seconds: float, warm: float) -> Result:
    """`clients` clients for `seconds`, after `warm` seconds that do not count."""
    result, address, ask = Result(), address_of(url), request(url, question)
    loop = asyncio.get_running_loop()
    began = time.perf_counter() + warm
    end = began + seconds

    async def one() -> None:
        client: Client | None = None
        while time.perf_counter() < end:
            try:
                if client is None:
                    _, client = await loop.create_connection(Client, *address)
                status, body, first = await client.ask(ask)
                wrong = fault(status, body)
            except (OSError, httptools.HttpParserError) as error:
                wrong, client, first = repr(error), None, 0.0
            now = time.perf_counter()
            if wrong is not None:
                result.errors += 1
                result.messages[SEEN_ERRORS - 1 :] = [wrong]
                await asyncio.sleep(0.01)
                continue
            result.all += 1
            if began <= now <= end:
                result.streams += 1
                result.first.append(first)
        if client is not None:
            client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    result.seconds = seconds
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="base URL, up to and including /v1")
    parser.add_argument("--question", default="relay")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--warm", type=float, default=1.0)
    given = parser.parse_args()
    result = uvloop.run(load(given.url, given.question, given.clients, given.seconds, given.warm))
    json.dump(asdict(result), sys.stdout)


if __name__ == "__main__":
    main()
