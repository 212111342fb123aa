"""The SSE parser gives the same events for every split of the bytes."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.relay import sse
from server.relay.sse import EventTooLarge, SSEParser

BREAKS = st.sampled_from([b"\n", b"\r\n", b"\r"])
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


def parse(*chunks: bytes) -> list[bytes]:
    parser = SSEParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(TEXTS, max_size=5), BREAKS, st.lists(st.integers(0, 10_000), max_size=20))
def test_events_survive_any_split(texts: list[str], end: bytes, cuts: list[int]) -> None:
    payloads = [json.dumps({"text": text}, ensure_ascii=False).encode() for text in texts]
    stream = (
        b": comment"
        + end * 2
        + b"".join(
            b"event: x" + end + b"data: " + payload + end + b"id: 7" + end * 2
            for payload in payloads
        )
    )
    assert parse(*split(stream, cuts)) == payloads
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == payloads


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_bytes_parse_alike_in_any_split(data: bytes, cuts: list[int]) -> None:
    assert parse(*split(data, cuts)) == parse(data)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"data: a\r\rdata: b\r\n\r\n", [b"a", b"b"]),
        (b"\n\n\n: x\n\nevent: ping\n\n", []),
        (b"data: unfinished\n", []),
        (b"database: no\n\n", []),
    ],
)
def test_forms(stream: bytes, events: list[bytes]) -> None:
    assert parse(stream) == events


@pytest.mark.parametrize("line", [b"x" * 200, b"data: 1234567890\n" * 20])
def test_events_are_bounded(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    with pytest.raises(EventTooLarge):
        parse(line)
    assert parse(*[b"data: 1234567890\n\n"] * 20) == [b"1234567890"] * 20
