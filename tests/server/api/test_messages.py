"""`/v1/messages`: translated to chat and back, over real HTTP and with Anthropic's own types."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import Message as AnthropicMessage
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from server.api.messages.errors import anthropic_error
from server.api.messages.machine import MessageMachine
from server.api.messages.request import to_chat
from server.api.messages.schemas import MessagesRequest
from server.relay.events import Finished, RawDelta, TextDelta, Usage
from tests.fakes import in_turn, refuses, says
from tests.server.conftest import World
from tests.server.guarded import guarded, limited
from tests.server.relay.test_dispatch import CALL, TOOL_CALL

PATH = "/v1/messages"
USER = {"role": "user", "content": "Hi"}
ADD = {
    "name": "add",
    "description": "Adds.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


def message_body(**fields: Any) -> dict[str, Any]:
    return {"model": "trivium", "max_tokens": 50, "messages": [USER]} | fields


async def send(world: World, **fields: Any) -> dict[str, Any]:
    response = await world.http.post(PATH, json=message_body(**fields))
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    TypeAdapter(AnthropicMessage).validate_python(body)
    return body


async def stream(world: World, **fields: Any) -> list[dict[str, Any]]:
    response = await world.http.post(PATH, json=message_body(stream=True, **fields))
    assert response.status_code == 200, response.text
    events = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] != "error":
            TypeAdapter(RawMessageStreamEvent).validate_python(event)
        events.append(event)
    return events


def chat(**fields: Any) -> dict[str, Any]:
    """The chat request for a request as its clients send it."""
    request = MessagesRequest.model_validate(message_body(**fields))
    return to_chat(request).model_dump(exclude_unset=True)


# ---------------------------------------------------------------- requests


def test_plain() -> None:
    body = chat(
        system=[
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be kind."},
        ],
        stop_sequences=["END"],
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        metadata={"user_id": "u"},
        service_tier="auto",
        seed=3,
        thinking={"type": "enabled", "budget_tokens": 1024},
        trivium={"trace": True},
    )
    assert body == {
        "model": "trivium",
        "messages": [{"role": "system", "content": "Be brief.\nBe kind."}, USER],
        "max_completion_tokens": 50,
        "stop": ["END"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "user": "u",
        "seed": 3,
        "trivium": {"trace": True},
    }


def test_a_conversation_with_tools() -> None:
    turns = [
        USER,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "add", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "3"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [{"type": "text", "text": "7"}],
                    "is_error": True,
                },
                {"type": "tool_result", "tool_use_id": "t3"},
                {"type": "text", "text": "And?"},
                {"type": "text", "text": "Well?"},
            ],
        },
    ]
    function = {"name": "add"}
    assert chat(messages=turns)["messages"] == [
        USER,
        {
            "role": "assistant",
            "reasoning": "hm",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": function | {"arguments": '{"a": 1}'}},
                {"id": "t2", "type": "function", "function": function | {"arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "3"},
        {"role": "tool", "tool_call_id": "t2", "content": "7"},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("And?", "Well?")]},
    ]


def test_what_claude_code_writes_for_anthropics_servers_is_left_out() -> None:
    header = {"type": "text", "text": "x-anthropic-billing-header: cch=1a2b3;"}
    brief = {"type": "text", "text": "Be brief."}
    said = {"role": "system", "content": "Be brief."}
    assert chat(system=[header, brief])["messages"] == [said, USER]
    assert chat(system=header["text"])["messages"] == [USER]
    turns: list[Any] = [USER, {"role": "system", "content": [header, brief]}]
    assert chat(messages=turns)["messages"] == [USER, said]


def test_an_unfinished_answer_is_continued() -> None:
    body = chat(messages=[USER, {"role": "assistant", "content": "It is"}])
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False
    assert "continue_final_message" not in chat()


@pytest.mark.parametrize(
    ("choice", "chosen", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "none"}, "none", None),
        ({"type": "tool", "name": "add"}, {"type": "function", "function": {"name": "add"}}, None),
    ],
)
def test_tools(choice: dict[str, Any], chosen: Any, parallel: bool | None) -> None:
    body = chat(tools=[ADD], tool_choice=choice)
    function = {
        "name": "add",
        "description": "Adds.",
        "parameters": ADD["input_schema"],
    }
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == chosen
    assert body.get("parallel_tool_calls") is parallel
    assert "tool_choice" not in chat(tools=[], tool_choice=choice)


def test_output_config_and_thinking() -> None:
    schema = {"type": "object"}
    format = {"type": "json_schema", "schema": schema}
    body = chat(output_config={"format": format, "effort": "low"})
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert body["reasoning_effort"] == "low"
    assert chat(thinking={"type": "disabled"})["reasoning_effort"] == "none"


@pytest.mark.parametrize(
    ("fields", "status", "kind", "says_so"),
    [
        ({"model": "claude"}, 404, "not_found_error", "claude"),
        ({"max_tokens": 0}, 400, "invalid_request_error", "max_tokens"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        ({"temperature": -1}, 400, "invalid_request_error", "temperature"),
        ({"stop_sequences": [""]}, 400, "invalid_request_error", "stop_sequences"),
        ({"tools": [{"type": "bash_20250124"}]}, 400, "invalid_request_error", "bash_20250124"),
        ({"tool_choice": {"type": "tool"}}, 400, "invalid_request_error", "name"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            400,
            "invalid_request_error",
            "image",
        ),
        ({"trivium": {"experts": ["nobody"]}}, 400, "invalid_request_error", "nobody"),
    ],
)
async def test_refused(
    world: World, fields: dict[str, Any], status: int, kind: str, says_so: str
) -> None:
    response = await world.http.post(PATH, json=message_body(**fields))
    assert response.status_code == status
    body = response.json()
    assert body["type"] == "error"
    assert body["error"]["type"] == kind
    assert says_so in body["error"]["message"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert int(response.headers["content-length"]) == len(response.content)


# ---------------------------------------------------------------- answers


async def test_handed_over_in_mid_answer(world: World) -> None:
    world.meta.behave = says("It is ", CALL)
    world.arithmetic.behave = says("42")
    body = await send(world, trivium={"trace": True})
    assert body["content"] == [{"type": "text", "text": "It is 42"}]
    assert (body["stop_reason"], body["stop_sequence"]) == ("end_turn", None)
    assert body["usage"]["input_tokens"] == 20
    assert [s["model"] for s in body["trivium"]["segments"]] == ["meta", "arithmetic"]
    assert "trivium" not in await send(world)


async def test_events_of_a_text(world: World) -> None:
    world.meta.behave = says("It is ", CALL)
    world.arithmetic.behave = says("42")
    events = await stream(world)
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["content"] == []
    assert events[1]["content_block"] == {"type": "text", "text": ""}
    assert [e["delta"]["text"] for e in events[2:4]] == ["It is ", "42"]
    whole = await send(world)
    assert events[-2]["usage"] == whole["usage"]
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


async def test_tool_use(world: World) -> None:
    world.meta.behave = says(CALL)
    world.arithmetic.behave = says(*TOOL_CALL, finish_reason="tool_calls")
    body = await send(world, tools=[ADD])
    (use,) = body["content"]
    assert (use["type"], use["name"], use["input"]) == ("tool_use", "add", {"a": 1})
    assert body["stop_reason"] == "tool_use"
    events = await stream(world, tools=[ADD])
    assert events[1]["content_block"]["input"] == {}
    pieces = [e["delta"]["partial_json"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(pieces) == '{"a": 1}'


async def test_stop_sequence_and_budget(world: World) -> None:
    world.meta.behave = says("a", "b", "#", "c")
    stopped = await send(world, stop_sequences=["#"])
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "#")
    assert stopped["content"][0]["text"] == "ab"
    assert (await send(world, max_tokens=2))["stop_reason"] == "max_tokens"


async def test_a_broken_stream_ends_with_an_error_event(world: World) -> None:
    world.meta.behave = says("one ", failure="error", fail_after=1)
    *_, last = await stream(world)
    assert last["type"] == "error"
    assert last["error"]["type"] == "api_error"
    assert "0xdead" not in last["error"]["message"]
    response = await world.http.post(PATH, json=message_body())
    assert response.status_code in (502, 503), "503: its breaker is open"
    assert response.json()["error"]["type"] in ("api_error", "overloaded_error")


async def test_a_refusal_by_the_chosen_expert_has_its_status(world: World) -> None:
    world.meta.behave = in_turn(says(CALL), refuses(400, "no such schema"))
    world.arithmetic.behave = refuses(400, "no such schema")
    response = await world.http.post(PATH, json=message_body(stream=True, tools=[ADD]))
    assert response.status_code == 400
    assert "no such schema" in response.json()["error"]["message"]


async def test_the_start_tells_the_tokens_of_the_prompt(world: World) -> None:
    start, *_, last, _ = await stream(world)
    assert start["message"]["usage"]["input_tokens"] == last["usage"]["input_tokens"] > 0


async def test_every_answer_names_its_request_as_anthropics_clients_expect(world: World) -> None:
    own = {"x-request-id": "mine"}
    for body in (message_body(), message_body(stream=True), {}):
        response = await world.http.post(PATH, json=body, headers=own)
        assert response.headers["request-id"] == "mine"
    world.meta.behave = says("a", "b", failure="error", fail_after=1)
    response = await world.http.post(PATH, json=message_body(stream=True), headers=own)
    assert '"request_id":"mine"' in response.text


async def test_errors_of_the_guard_have_this_form_too(tmp_path: Path) -> None:
    key, secret = limited(requests=1)
    async with guarded(tmp_path, key) as behind:
        http = behind.world.http
        missing = await http.post(PATH, json=message_body())
        assert missing.status_code == 401
        assert missing.json()["error"]["type"] == "authentication_error"
        named = {"x-api-key": secret}
        assert (await http.post(PATH, json=message_body(), headers=named)).status_code == 200
        used_up = await http.post(PATH, json=message_body(), headers=named)
        assert used_up.status_code == 429
        assert used_up.json()["error"]["type"] == "rate_limit_error"
        assert int(used_up.headers["retry-after"]) > 0
        other = await http.get("/v1/models")
        assert set(other.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, "permission_error"), (418, "invalid_request_error"), (500, "api_error")],
)
def test_error_types(status: int, kind: str) -> None:
    error = anthropic_error({"error": {"message": "m"}}, status, None)
    assert (error.error.type, error.error.message) == (kind, "m")


# ---------------------------------------------------------------- the machine


def run(*events: Any) -> MessageMachine:
    machine = MessageMachine("trivium")
    for event in events:
        list(machine.on(event))
    list(machine.end())
    return machine


def tool_call(index: int, arguments: str) -> RawDelta:
    function = {"name": f"f{index}", "arguments": arguments}
    return RawDelta({"tool_calls": [{"index": index, "id": f"t{index}", "function": function}]})


def test_thinking_text_and_calls_are_blocks() -> None:
    message = run(
        RawDelta({"reasoning": "h"}),
        RawDelta({"reasoning": "m"}),
        TextDelta("a"),
        tool_call(0, '{"a":'),
        tool_call(1, "[1]"),
        tool_call(0, " 1}"),
        Finished("stop"),
        Usage(10, 2, 4),
    ).message
    assert [block.model_dump() for block in message.content] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "t0", "name": "f0", "input": {"a": 1}},
        {"type": "tool_use", "id": "t1", "name": "f1", "input": {}},
    ]
    assert message.stop_reason == "tool_use"
    assert message.usage.model_dump() == {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 2,
    }


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [('{"path": "/tmp/', "stop_sequence"), ('{"path": "/tmp/"}', "tool_use"), ("", "tool_use")],
)
@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_a_call_that_a_stop_string_cut_is_not_one_to_make(
    arguments: str, reason: str, finish: str
) -> None:
    message = run(tool_call(0, arguments), Finished(finish, "STOP")).message
    assert message.stop_reason == reason
    assert message.stop_sequence == ("STOP" if reason == "stop_sequence" else None)


def test_each_block_stops_before_the_next_begins() -> None:
    machine = MessageMachine("trivium")
    calls = [tool_call(0, "{}"), tool_call(1, "{}"), TextDelta("a"), Finished("tool_calls")]
    events = [e.type for event in calls for e in machine.on(event)]
    events += [event.type for event in machine.end()]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert events == ["message_start", *3 * block, "message_delta", "message_stop"]


def test_an_empty_answer_has_an_empty_text() -> None:
    message = run(Finished("content_filter")).message
    assert [block.model_dump() for block in message.content] == [{"type": "text", "text": ""}]
    assert message.stop_reason == "refusal"


# ---------------------------------------------------------------- the official client


@asynccontextmanager
async def client_of(world: World) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=world.url, api_key="none", max_retries=0
    ) as client:
        yield client


async def test_anthropic_client(world: World) -> None:
    messages: Any = [USER]
    ask: Any = {"model": "trivium", "max_tokens": 50, "messages": messages}
    world.meta.behave = says("a", "b")
    async with client_of(world) as client:
        whole = await client.messages.create(**ask)
        assert whole.content[0].text == "ab"  # type: ignore[union-attr]
        async with client.messages.stream(**ask) as events:
            text = "".join([piece async for piece in events.text_stream])
            final = await events.get_final_message()
        assert text == "ab"
        assert final.usage.input_tokens == whole.usage.input_tokens == 10
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(**ask | {"model": "claude"})
        world.meta.behave = says("one ", failure="cut", fail_after=1)
        with pytest.raises(anthropic.APIStatusError):
            async with client.messages.stream(**ask) as events:
                _ = [piece async for piece in events.text_stream]


async def test_anthropic_client_goes_on_with_its_own_output(world: World) -> None:
    """The blocks that a client gets may be sent back as they are."""
    world.meta.behave = in_turn(says(CALL), says("done"))
    world.arithmetic.behave = says(*TOOL_CALL, finish_reason="tool_calls")
    tools: Any = [ADD]
    async with client_of(world) as client:
        first = await client.messages.create(
            model="trivium",
            max_tokens=50,
            messages=[{"role": "user", "content": "1+2?"}],
            tools=tools,
        )
        turns: Any = [
            USER,
            {"role": "assistant", "content": first.content},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": first.content[0].id,  # type: ignore[union-attr]
                        "content": "3",
                    }
                ],
            },
        ]
        last = await client.messages.create(model="trivium", max_tokens=50, messages=turns)
    assert last.content[0].text == "done"  # type: ignore[union-attr]
    assert [m["role"] for m in world.meta.bodies[-1]["messages"]] == ["user", "assistant", "tool"]


# ---------------------------------------------------------------- counting


async def test_tokens_are_counted_by_the_model_that_begins_the_answer(world: World) -> None:
    asked = {"system": "Be brief.", "messages": [{"role": "user", "content": "One two three"}]}
    counted = await world.http.post(f"{PATH}/count_tokens", json={"model": "trivium", **asked})
    assert (counted.status_code, counted.json()) == (200, {"input_tokens": 5})
    (body,) = world.meta.bodies
    assert body["model"] == "meta-model"
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    pinned = {"model": "trivium/arithmetic", **asked, "tools": [ADD]}
    assert (await world.http.post(f"{PATH}/count_tokens", json=pinned)).status_code == 200
    (body,) = world.arithmetic.bodies
    assert body["tools"][0]["function"]["name"] == "add"


async def test_anthropics_client_counts(world: World) -> None:
    async with anthropic.AsyncAnthropic(base_url=world.url, api_key="none") as client:
        counted = await client.messages.count_tokens(model="trivium", messages=[USER])  # type: ignore[list-item]
    assert counted.input_tokens == 1


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"messages": []}, 400, "invalid_request_error"),
        ({"model": "trivium/nobody"}, 404, "not_found_error"),
    ],
)
async def test_what_cannot_be_counted(
    world: World, fields: dict[str, Any], status: int, kind: str
) -> None:
    body = {"model": "trivium", "messages": [USER]} | fields
    refused = await world.http.post(f"{PATH}/count_tokens", json=body)
    assert refused.status_code == status
    assert refused.json()["type"] == "error"
    assert refused.json()["error"]["type"] == kind


async def test_a_server_that_does_not_count_is_named(world: World) -> None:
    await world.meta.stop()
    world.meta.counts = False
    await world.meta.start()
    refused = await world.http.post(
        f"{PATH}/count_tokens", json={"model": "trivium", "messages": [USER]}
    )
    assert refused.status_code == 422
    assert "does not count tokens" in refused.json()["error"]["message"]
    await world.meta.stop()
    gone = await world.http.post(
        f"{PATH}/count_tokens", json={"model": "trivium", "messages": [USER]}
    )
    assert gone.status_code == 502
