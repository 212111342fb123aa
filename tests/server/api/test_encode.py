"""Folding and streaming the same events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.chat.encode import Answer, ChunkEncoder, fold, merge_delta
from server.api.streaming import encoded
from server.errors import UpstreamFailed
from server.relay.events import (
    Batch,
    Event,
    Failed,
    Finished,
    RawDelta,
    Routed,
    TextDelta,
    Traced,
    Usage,
)

ANSWER = Answer("trivium", id="chatcmpl-1", created=5)


async def stream(*events: Event) -> AsyncIterator[Batch]:
    for event in events:
        yield [event]


async def chunks(*events: Event, answer: Answer = ANSWER) -> list[Any]:
    return [
        json.loads(line.removeprefix(b"data: ")) for line in await lines(stream(*events), answer)
    ]


async def lines(batches: AsyncIterator[Batch], answer: Answer = ANSWER) -> list[bytes]:
    """The events of a stream, without the `[DONE]` that ends it."""
    *events, done, rest = b"".join(
        [piece async for piece in encoded(batches, ChunkEncoder(answer))]
    ).split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert done not in events
    return events


async def test_exact_chunks() -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "trivium"}
    first = {"role": "assistant", "content": "a"}
    assert await chunks(Routed("x"), TextDelta("a"), Finished("stop", "END"), Usage(1, 2)) == [
        head | {"choices": [{"index": 0, "delta": first, "finish_reason": None}]},
        head
        | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]},
    ]


async def test_an_empty_answer_has_its_role() -> None:
    (only,) = await chunks(Finished("stop"), Usage())
    assert only["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    body = await fold(stream(Finished("stop"), Usage()), ANSWER)
    assert body.choices[0].message == {"role": "assistant", "content": ""}


async def test_usage_and_trace_share_the_last_chunk() -> None:
    answer = Answer("trivium", include_usage=True)
    *_, last = await chunks(Finished("stop"), Usage(1, 2, 1), Traced(()), answer=answer)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert last["trivium"] == {"segments": []}


async def test_failed_ends_the_stream_with_an_error_event() -> None:
    seen = await chunks(TextDelta("a"), Failed(UpstreamFailed("gone")), Finished("stop"))
    assert len(seen) == 2
    assert seen[1]["error"]["message"] == "gone"
    with pytest.raises(UpstreamFailed):
        await fold(stream(TextDelta("a"), Failed(UpstreamFailed("gone"))), ANSWER)


async def test_a_fault_of_ours_is_an_error_event_too() -> None:
    async def broken() -> AsyncIterator[Batch]:
        yield [TextDelta("a")]
        raise ZeroDivisionError("secret")

    _, error = await lines(broken())
    assert b"internal_error" in error
    assert b"secret" not in error


async def test_a_fault_before_the_first_byte_is_raised() -> None:
    with pytest.raises(UpstreamFailed):
        await chunks(Routed("x"), Failed(UpstreamFailed("gone")))


async def test_a_batch_is_one_piece_and_each_event_a_chunk_of_its_own() -> None:
    async def batches() -> AsyncIterator[Batch]:
        yield [TextDelta("a"), TextDelta('"b"\n\x00🌒'), TextDelta("c", choice=1)]
        yield [TextDelta("d", choice=1), Finished("stop"), Finished("stop", choice=1)]

    pieces = [piece async for piece in encoded(batches(), ChunkEncoder(ANSWER))]
    assert len(pieces) == 3
    seen = [json.loads(line[6:]) for piece in pieces[:2] for line in piece.split(b"\n\n")[:-1]]
    deltas = [(c["index"], c["delta"].get("content")) for s in seen for c in s["choices"]]
    assert deltas == [(0, "a"), (0, '"b"\n\x00🌒'), (1, "c"), (1, "d"), (0, None), (1, None)]


@given(st.text())
async def test_plain_chunks_are_as_any_other(text: str) -> None:
    """The frame of a choice gives what the general encoder gives."""
    _, framed, general = await chunks(
        TextDelta("a"), TextDelta(text), TextDelta(text, logprobs={"content": []})
    )
    general["choices"][0].pop("logprobs")
    assert framed == general


async def test_fold_joins_reasoning_and_logprobs() -> None:
    one, two = {"content": [{"token": "a"}]}, {"content": [{"token": "b"}]}
    body = await fold(
        stream(
            RawDelta({"reasoning": "h"}),
            RawDelta({"reasoning": "m"}),
            TextDelta("a", logprobs=one),
            TextDelta("b", logprobs=two),
            Finished("stop"),
            Usage(1, 2),
        ),
        ANSWER,
    )
    assert body.choices[0].message == {"role": "assistant", "content": "ab", "reasoning": "hm"}
    assert body.choices[0].logprobs == {"content": [{"token": "a"}, {"token": "b"}]}
    assert one == {"content": [{"token": "a"}]}


async def test_a_call_has_what_its_client_needs() -> None:
    """Some servers send id and name empty after the first piece; some calls are cut after it."""
    first = {"index": 0, "id": "c", "function": {"name": "now"}}
    again = {"index": 0, "id": "", "function": {"name": "", "arguments": "{}"}}
    whole = {"type": "function", "id": "c", "function": {"name": "now", "arguments": "{}"}}
    cut = whole | {"function": {"name": "now", "arguments": ""}}
    for pieces, expected in (([first, again], whole), ([first], cut)):
        deltas = [RawDelta({"tool_calls": [piece]}) for piece in pieces]
        body = await fold(stream(*deltas, Finished("length")), ANSWER)
        assert body.choices[0].message["tool_calls"] == [expected]


def test_parallel_tool_calls_are_merged_by_index() -> None:
    whole: dict[str, Any] = {}
    for index, text in ((0, "a"), (1, "x"), (0, "b"), (1, "y")):
        call = {"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": text}}
        merge_delta(whole, {"tool_calls": [call]})
    assert [c["function"] for c in whole["tool_calls"]] == [
        {"name": "f", "arguments": "ab"},
        {"name": "f", "arguments": "xy"},
    ]
    assert [c["id"] for c in whole["tool_calls"]] == ["c0", "c1"]
