"""The loop that all streamed forms share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server.api.streaming import encoded
from server.errors import UpstreamFailed
from server.relay.events import Batch, Event, Failed, TextDelta


class Plain:
    """An encoder whose events are words."""

    def encode(self, event: Event) -> bytes:
        assert event.kind != "failed"
        return event.text.encode() if isinstance(event, TextDelta) else b""

    def end(self) -> bytes:
        return b"end"

    def failed(self, error: Exception) -> bytes:
        return b"failed: " + type(error).__name__.encode()


async def stream(*events: Event | Exception) -> AsyncIterator[Batch]:
    """Each event in a batch of its own."""
    for event in events:
        if isinstance(event, Exception):
            raise event
        yield [event]


async def written(*events: Event | Exception) -> list[bytes]:
    return [data async for data in encoded(stream(*events), Plain())]


async def test_nothing_is_sent_for_nothing() -> None:
    assert await written(TextDelta("a"), TextDelta(""), TextDelta("b")) == [b"a", b"b", b"end"]


async def test_a_failure_is_the_last_event() -> None:
    failed = Failed(UpstreamFailed("gone"))
    assert await written(TextDelta("a"), failed, TextDelta("b")) == [
        b"a",
        b"failed: UpstreamFailed",
    ]


async def test_a_fault_of_ours_is_an_event_too() -> None:
    assert await written(TextDelta("a"), ZeroDivisionError()) == [
        b"a",
        b"failed: ZeroDivisionError",
    ]


async def test_the_events_of_a_batch_go_in_one_piece() -> None:
    async def batches() -> AsyncIterator[Batch]:
        yield [TextDelta("a"), TextDelta("b")]
        yield [TextDelta("c"), Failed(UpstreamFailed("gone"))]

    assert [data async for data in encoded(batches(), Plain())] == [
        b"ab",
        b"c",
        b"failed: UpstreamFailed",
    ]


async def test_a_fault_before_the_first_event_is_raised() -> None:
    with pytest.raises(UpstreamFailed):
        await written(Failed(UpstreamFailed("gone")))
