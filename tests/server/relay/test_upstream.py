"""The client of one worker: parsing, errors, connections."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from server.errors import ContextTooLong, UpstreamError, UpstreamFailed, UpstreamRejected
from server.relay import upstream
from server.relay.connections import Connections
from server.relay.events import Finished, RawDelta, TextDelta, Usage
from server.relay.snapshot import Endpoint
from server.relay.upstream import MAX_MESSAGE, Upstream, parse_event, worker_error, worker_session
from tests.fakes import FakeWorker, says
from tests.server.conftest import until


def parse(**chunk: Any) -> list[Any]:
    return list(parse_event(json.dumps(chunk).encode()))


def delta(fields: dict[str, Any], **choice: Any) -> list[Any]:
    return parse(choices=[{"index": 0, "delta": fields, **choice}])


def test_chunks_become_events() -> None:
    assert delta({"role": "assistant", "content": ""}) == []
    assert delta({"content": "a"}) == [TextDelta("a")]
    assert delta({"content": "a"}, logprobs={"content": []}) == [
        TextDelta("a", logprobs={"content": []})
    ]
    calls = [{"index": 0}]
    assert delta({"tool_calls": calls}) == [RawDelta({"tool_calls": calls})]
    assert delta({"content": "a", "tool_calls": ""}) == [TextDelta("a")]
    assert delta({"reasoning": "hm"}) == [RawDelta({"reasoning": "hm"})]
    assert parse(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 4}) == [Usage(3, 4)]
    details = {"cached_tokens": 2}
    assert parse(usage={"prompt_tokens": 3, "prompt_tokens_details": details}) == [Usage(3, 0, 2)]


def test_finish_comes_before_the_last_delta_of_its_chunk() -> None:
    assert delta({"content": "z"}, finish_reason="stop", stop_reason=7) == [
        Finished("stop", 7),
        TextDelta("z"),
    ]


def test_of_one_delta_come_thoughts_then_text_then_calls() -> None:
    assert delta({"content": "a", "tool_calls": [{"index": 0}], "reasoning": "h"}) == [
        RawDelta({"reasoning": "h"}),
        TextDelta("a"),
        RawDelta({"tool_calls": [{"index": 0}]}),
    ]


def test_lone_surrogates_are_replaced() -> None:
    assert delta({"content": "a\ud83d"}) == [TextDelta("a?")]
    assert delta({"content": "🌒"}) == [TextDelta("🌒")]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"nope", b"[]", b"3", b"\xff", b'{"choices": 3}', b'{"choices": [4]}',
        b'{"choices": [{"delta": "x"}]}', b'{"choices": [{"delta": {"content": 5}}]}',
        b'{"usage": 7}', b'{"usage": {"prompt_tokens": "x"}}',
        b'{"usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": {}}}}',
        b'{"choices": [{"delta": {}, "logprobs": "x"}]}',
        b'{"choices": [{"delta": {"content": "a"}, "logprobs": {"content": {"0": 1}}}]}',
        b'{"choices": [{"delta": {"tool_calls": 5}}]}',
        b'{"choices": [{"delta": {}, "finish_reason": "stop", "stop_reason": [7]}]}',
        b"[" * 100_000,
        b'{"choices": [{"delta": {}, "finish_reason": "abort"}]}', b'{"error": "boom"}',
        b'{"choices": [{"delta": {"tool_calls": %b}}]}' % (b"[" * 300 + b"]" * 300),
        b'{"choices": [{"delta": {}, "logprobs": {"x": %b}}]}' % (b"[" * 300 + b"]" * 300),
        b'{"error": {"message": "m", "code": 500}}',
    ],
)  # fmt: skip
def test_broken_events_are_failures(data: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        list(parse_event(data))


def test_error_events_carry_their_status() -> None:
    with pytest.raises(UpstreamRejected) as rejected:
        parse(error={"message": "bad logit_bias", "code": 400, "param": "logit_bias"})
    assert (rejected.value.status, rejected.value.param) == (400, "logit_bias")


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 64 tokens. However, …",
        "max_tokens=99 cannot be greater than max_model_len=64. Please …",
        "The prompt is longer than the maximum model length of 64.",
    ],
)
def test_vllms_messages_about_context(message: str) -> None:
    """As written by vLLM 0.32 in renderers/params.py and v1/engine/input_processor.py."""
    assert isinstance(worker_error({"message": message}, 400), ContextTooLong)
    assert not isinstance(worker_error({"message": message}, 422), ContextTooLong)


def test_messages_are_cleaned() -> None:
    error = worker_error({"message": "a\n\x1b[31mb\x00" + "x" * 5000}, 400)
    assert error.message.startswith("a [31mb x")
    assert len(error.message) == MAX_MESSAGE + 1


async def test_connections_are_used_again() -> None:
    body = {"model": "m", "messages": [], "stream": True}
    async with FakeWorker(says("a", "b")) as worker, Connections() as connections:
        for _ in range(3):
            batches = Upstream(connections).stream_chat(worker.endpoint, body)
            async with aclosing(batches):
                texts = [e.text async for b in batches for e in b if isinstance(e, TextDelta)]
            assert texts == ["a", "b"]
        assert len({request.peer for request in worker.received}) == 1


async def test_a_kept_connection_that_was_just_closed_is_no_failure_of_the_worker() -> None:
    """uvicorn's event loop may have been busy for so long that it closes one in use."""
    body = {"model": "m", "messages": [], "stream": True}
    event = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n'
    text = event + b"data: [DONE]\n\n"
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.rpartition(b": ")[2]))
            asked += 1
            if asked != 2:
                length = str(len(text)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: " + length + b"\r\n\r\n" + text)
        writer.close()

    async with (
        await asyncio.start_server(answer, "127.0.0.1", 0) as server,
        Connections() as connections,
    ):
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", "m")
        for _ in range(2):
            async with aclosing(Upstream(connections).stream_chat(endpoint, body)) as batches:
                texts = [e.text async for b in batches for e in b if isinstance(e, TextDelta)]
            assert texts == ["a"]
    assert asked == 3


async def test_who_leaves_while_a_kept_connection_breaks_is_not_asked_for_again() -> None:
    body = {"model": "m", "messages": [], "stream": True}
    async with FakeWorker(says("a")) as worker, Connections() as connections:
        client = Upstream(connections)
        async with aclosing(client.stream_chat(worker.endpoint, body)) as batches:
            async for _ in batches:
                pass
        worker.behave = says("a", delay=5.0)
        asked = asyncio.ensure_future(anext(client.stream_chat(worker.endpoint, body)))
        await until(lambda: len(worker.received) == 2)
        (answer,) = client._running
        answer.connection_lost(None)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert len(worker.received) == 2
        assert not client._running


async def test_closing_the_events_closes_the_connection() -> None:
    body = {"model": "m", "messages": [], "stream": True}
    async with FakeWorker(says(*"abc", delay=0.05)) as worker, Connections() as connections:
        async with aclosing(Upstream(connections).stream_chat(worker.endpoint, body)) as events:
            async for _ in events:
                break
        await worker.received[0].over.wait()
        assert worker.received[0].aborted


async def test_redirects_are_not_followed() -> None:
    behave = says(status=307, headers={"Location": "/v1/chat/completions"})
    async with FakeWorker(behave) as worker, Connections() as connections:
        with pytest.raises(UpstreamError):
            await anext(Upstream(connections).stream_chat(worker.endpoint, {}))
        assert len(worker.received) == 1


async def test_a_session_has_no_limit_of_connections() -> None:
    """aiohttp's default of 100 would be a queue that nobody sees."""
    async with worker_session() as session:
        assert session.connector is not None
        assert session.connector.limit == 0


@pytest.mark.parametrize(("kept", "connections"), [(60.0, 1), (0.05, 2)])
async def test_workers_are_not_asked_over_connections_that_were_idle_for_long(
    kept: float, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They close them, and a request that is just being sent would fail."""
    opened = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    monkeypatch.setattr(upstream, "KEEP_SECONDS", kept)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with worker_session() as session:
            for _ in range(2):
                async with session.get(url) as response:
                    assert await response.text() == "ok"
                await asyncio.sleep(0.2)
    assert opened == connections
