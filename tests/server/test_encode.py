"""Folding and streaming the same events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.encode import Answer, fold, merge_delta, sse
from server.errors import UpstreamFailed
from server.events import Batch, Event, Failed, Finished, RawDelta, Routed, TextDelta, Traced, Usage

ANSWER = Answer("trivium", id="chatcmpl-1", created=5)


async def stream(*events: Event) -> AsyncIterator[Batch]:
    for event in events:
        yield [event]


async def chunks(*events: Event, answer: Answer = ANSWER) -> list[Any]:
    lines = [line async for line in sse(stream(*events), answer)]
    assert lines[-1] == b"data: [DONE]\n\n"
    assert lines.count(lines[-1]) == 1
    return [json.loads(line.removeprefix(b"data: ")) for line in lines[:-1]]


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

    lines = [line async for line in sse(broken(), ANSWER)]
    assert b"internal_error" in lines[1]
    assert b"secret" not in lines[1]
    assert lines[2:] == [b"data: [DONE]\n\n"]


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
