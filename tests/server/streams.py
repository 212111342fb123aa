"""Hypothesis strategies for what a worker may send: chunks as they should be, and damaged ones."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import strategies as st

TEXTS = st.text(max_size=8) | st.sampled_from(["", '"', "\\", "\n", "\x00", "é", "🌒", "\u2028"])
SCALARS = st.sampled_from([None, True, False, 0, 1, -1, 2**70, 1.5, 3.0, "", "x", "stop", [], {}])
JSON = SCALARS | TEXTS | st.lists(SCALARS, max_size=2) | st.dictionaries(TEXTS, SCALARS, max_size=2)


def _maybe(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`value`, but one time in eight anything."""
    return st.integers(0, 7).flatmap(lambda n: value if n else JSON)


def _object(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object that has each of `fields` or not."""
    return st.fixed_dictionaries({}, optional=fields)


COUNTS = st.integers(0, 5000)
USAGE = _object(
    prompt_tokens=_maybe(COUNTS),
    completion_tokens=_maybe(COUNTS),
    total_tokens=_maybe(COUNTS),
    prompt_tokens_details=_maybe(_object(cached_tokens=_maybe(COUNTS))),
    completion_tokens_details=_maybe(_object(reasoning_tokens=_maybe(COUNTS))),
)
DELTA = _object(
    role=_maybe(st.just("assistant")),
    content=_maybe(TEXTS),
    reasoning=_maybe(TEXTS),
    tool_calls=_maybe(st.just([{"index": 0, "function": {"arguments": "{"}}])),
)
CHOICE = _object(
    index=st.just(0),
    delta=_maybe(DELTA),
    logprobs=_maybe(st.none() | st.just({"content": [{"token": "a", "logprob": -0.5}]})),
    finish_reason=_maybe(st.none() | st.none() | st.sampled_from(["stop", "length", "abort"])),
    stop_reason=_maybe(st.none() | st.sampled_from([1001, 1002, "END"])),
    token_ids=_maybe(st.none()),
)
CHUNK = _object(
    id=_maybe(st.just("chatcmpl-1")),
    model=_maybe(TEXTS),
    choices=_maybe(st.lists(_maybe(CHOICE), max_size=2)),
    usage=_maybe(USAGE | st.none()),
    error=st.sampled_from([None, "", {"message": "m", "code": 400}, {"code": 500}, "boom"]),
)
PLAIN = st.builds(
    lambda text, tokens: {
        "id": "chatcmpl-1",
        "choices": [
            {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 3 + tokens, "completion_tokens": tokens},
    },
    TEXTS,
    COUNTS,
)
FINISH = st.builds(
    lambda delta, stop: {
        "choices": [{"index": 0, "delta": delta, "finish_reason": "stop", "stop_reason": stop}]
    },
    st.sampled_from([{}, {"content": ""}, {"content": "z"}]),
    st.sampled_from([None, 1001, 1002, "END"]),
)

JUNK = [b"[DONE]", b"NaN", b"\xef\xbb\xbf{}", b"{}{}"]


@st.composite
def datas(draw: st.DrawFn) -> bytes:
    """The data of one event: a chunk, or one that was damaged."""
    chunk = draw(PLAIN | PLAIN | CHUNK)
    data = json.dumps(chunk, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    match draw(st.sampled_from(["whole"] * 6 + ["cut", "byte", "junk", "deep"])):
        case "cut":
            return data[: draw(st.integers(0, len(data)))]
        case "byte":
            at = draw(st.integers(0, len(data) - 1))
            return data[:at] + draw(st.binary(min_size=1, max_size=2)) + data[at + 1 :]
        case "junk":
            return draw(
                st.binary(max_size=30) | st.sampled_from([b"[DONE]", b"NaN", b"\xef\xbb\xbf{}"])
            )
        case "deep":
            return b'{"choices": ' + b"[" * 2000
    return data


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """The body of a stream: more or less what a worker sends, with any line ends."""
    end = draw(st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r"]))
    events = [b"data: " + data for data in draw(st.lists(datas(), max_size=6))]
    if draw(st.booleans()):
        events.append(b"data: " + json.dumps(draw(FINISH)).encode())
    if draw(st.booleans()):
        events.append(b"data: [DONE]")
    if draw(st.integers(0, 7)) == 0:
        events.insert(draw(st.integers(0, len(events))), draw(st.binary(max_size=30)))
    if draw(st.integers(0, 7)) == 0:
        events.insert(draw(st.integers(0, len(events))), b": " + b"x" * draw(st.integers(0, 5000)))
    return b"".join(event + end * 2 for event in events)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces; none of them is empty."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)
EVERY_BYTE = list(range(10_000))
