"""The fast path says what the general parser says, or nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from server.errors import UpstreamError
from server.relay.chunks import plain_events
from server.relay.events import TextDelta, Usage
from server.relay.upstream import parse_event
from tests.server.streams import datas

VLLM = (
    b'{"id":"chatcmpl-8f3c","object":"chat.completion.chunk","created":1760000000,"model":"meta",'
    b'"choices":[{"index":0,"delta":{"content":" so\\"me"},"logprobs":null,"finish_reason":null,'
    b'"token_ids":null}],"usage":{"prompt_tokens":30,"total_tokens":37,"completion_tokens":7}}'
)
"""As vLLM 0.32 writes it, with continuous usage."""


def test_vllms_chunks_take_it() -> None:
    assert plain_events(VLLM) == [Usage(30, 7), TextDelta(' so"me')]
    role = VLLM.replace(b'{"content":" so\\"me"}', b'{"role":"assistant","content":""}')
    assert plain_events(role) == [Usage(30, 7)]


@pytest.mark.parametrize(
    "change",
    [
        ('"finish_reason":null', '"finish_reason":"stop"'),
        ('"logprobs":null', '"logprobs":{"content":[]}'),
        ('"content":" so', '"reasoning":"hm","content":" so'),
        ('"content":" so', '"content":"\\ud83d'),
        ('"usage":{', '"error":{"message":"m"},"usage":{'),
        ('"completion_tokens":7', '"completion_tokens":"7"'),
    ],
)
def test_others_do_not(change: tuple[str, str]) -> None:
    data = VLLM.decode().replace(*change).encode()
    assert data != VLLM
    assert plain_events(data) is None


def test_nulls_of_other_servers_take_it_too() -> None:
    delta = {"role": None, "content": "a", "reasoning_content": None, "tool_calls": None}
    data = json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()
    assert plain_events(data) == [TextDelta("a")]


@given(datas())
def test_it_agrees_with_the_general_parser(data: bytes) -> None:
    if (plain := plain_events(data)) is None:
        return
    try:
        general = list(parse_event(data))
    except UpstreamError as error:
        general = [error]  # type: ignore[list-item]
    assert plain == general
