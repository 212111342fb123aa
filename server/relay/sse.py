"""Incremental parser of server-sent events (WHATWG HTML, section 9.2.6), data fields only."""

from __future__ import annotations

from collections.abc import Iterator

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""An event larger than this is a fault of the worker, not something to keep in memory."""


class EventTooLarge(ValueError):
    """A worker's event exceeds MAX_EVENT_BYTES."""


class SSEParser:
    """Bytes in, the data of complete events out; any split of the bytes gives the same events.

    Lines end in LF, CRLF or CR. Comments and fields other than `data` are ignored. Data stays
    bytes, so that a UTF-8 character cut by a read is whole again here.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of each event that `chunk` completes. Raises EventTooLarge."""
        if self._after_cr or b"\r" in chunk:
            yield from self._feed_lines(chunk)
            return
        if self._line or self._data:
            begun, end, chunk = chunk.partition(b"\n\n")
            yield from self._feed_lines(begun + end)
        *events, rest = chunk.split(b"\n\n")
        for event in events:
            # Nearly all events are one line of data, and whole: no need to look at lines.
            if event.startswith(b"data: ") and b"\n" not in event:
                yield event[6:]
            else:
                yield from self._feed_lines(event + b"\n\n")
        yield from self._feed_lines(rest)

    def _feed_lines(self, chunk: bytes) -> Iterator[bytes]:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return
        self._after_cr = chunk.endswith(b"\r")
        *lines, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            event = self._end_line(bytes(self._line) + line)
            self._line.clear()
            if event is not None:
                yield event
        self._line += rest
        if self._size + len(self._line) > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event of more than {MAX_EVENT_BYTES} bytes")

    def _end_line(self, line: bytes) -> bytes | None:
        """One whole line; an empty one ends the event and returns its data."""
        if not line:
            event = b"\n".join(self._data) if self._data else None
            self._data, self._size = [], 0
            return event
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)
        return None
