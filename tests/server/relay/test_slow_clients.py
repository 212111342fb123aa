"""Clients that read slowly or not at all: nothing piles up, and the workers are freed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import psutil
import pytest

from tests.fakes import says
from tests.server.conftest import World, request, until

PIECE, PIECES = 10_000, 20_000
CLIENTS = 2
ON_OFFER = PIECE * PIECES * CLIENTS
"""Bytes; what fits into the sockets' buffers is taken of it."""
FLAT = 1 << 20
"""Bytes by which memory may change from one look to the next to count as settled."""


def memory() -> int:
    """Bytes of this process, in which server and worker run."""
    return int(psutil.Process().memory_info().rss)


async def settled() -> int:
    """Memory once it no longer grows."""
    seen = [memory()]
    async with asyncio.timeout(30):
        while len(seen) < 3 or max(seen[-3:]) - min(seen[-3:]) > FLAT:
            await asyncio.sleep(0.4)
            seen.append(memory())
    return seen[-1]


@asynccontextmanager
async def deaf_client(world: World) -> AsyncIterator[asyncio.StreamWriter]:
    """A client that reads the beginning of its stream and then nothing."""
    body = json.dumps(request(stream=True)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(world.url).port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    await reader.readuntil(b"data: ")
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    try:
        yield writer
    finally:
        writer.transport.abort()


async def test_clients_that_stop_reading_hold_the_worker(world: World) -> None:
    """Nothing piles up in between, and when a client leaves its worker is freed."""
    world.meta.behave = says(*["x" * PIECE] * PIECES)
    async with AsyncExitStack() as stack:
        before = memory()
        writers = [await stack.enter_async_context(deaf_client(world)) for _ in range(CLIENTS)]
        full = await settled()
        assert not any(received.over.is_set() for received in world.meta.received)
        assert full - before < ON_OFFER / 3
        for writer in writers:
            writer.transport.abort()
        over = [received.over.wait() for received in world.meta.received]
        await asyncio.wait_for(asyncio.gather(*over), 1)
        assert all(received.aborted for received in world.meta.received)


async def test_a_client_that_never_reads_is_dropped_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.dispatcher.longest = 0.3
    monkeypatch.setattr("server.api.answering.GRACE_SECONDS", 0.2)
    world.meta.behave = says(*["x" * PIECE] * PIECES)
    async with deaf_client(world):
        await asyncio.wait_for(world.meta.received[0].over.wait(), 2)
        await until(lambda: not world.pool._outstanding)
