"""`/v1/responses`: translated to chat and back, over real HTTP and with OpenAI's own types."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from server.api.responses.machine import ResponseMachine
from server.api.responses.objects import FunctionCall, OutputMessage, ReasoningItem
from server.api.responses.request import to_chat
from server.api.responses.schemas import NOT_KEPT, ResponsesRequest
from server.errors import UpstreamFailed
from server.relay.events import Finished, RawDelta, TextDelta, Usage
from tests.fakes import in_turn, refuses, says
from tests.server.conftest import World
from tests.server.relay.test_dispatch import CALL, TOOL_CALL

PATH = "/v1/responses"
ADD = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    "strict": True,
}


async def respond(world: World, question: Any = "Hi", **fields: Any) -> dict[str, Any]:
    response = await world.http.post(PATH, json={"model": "trivium", "input": question} | fields)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    strict(OpenAIResponse, body)
    return body


async def stream(world: World, question: Any = "Hi", **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "trivium", "input": question, "stream": True} | fields
    response = await world.http.post(PATH, json=body)
    assert response.status_code == 200, response.text
    events = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        strict(ResponseStreamEvent, event)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def strict(kind: Any, value: dict[str, Any]) -> None:
    """Fails where `value` lacks a field of OpenAI's type, or has one of another type."""
    TypeAdapter(kind).validate_python(value)


def chat(**fields: Any) -> dict[str, Any]:
    """The chat request for a request as its clients send it."""
    request = ResponsesRequest.model_validate({"input": "Hi"} | fields)
    return to_chat(request).model_dump(exclude_unset=True)


# ---------------------------------------------------------------- requests


def test_text_and_instructions() -> None:
    body = chat(
        instructions="Be brief.",
        max_output_tokens=50,
        temperature=0.5,
        top_p=0.9,
        user="u",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        prompt_cache_key="k",
        top_k=7,
        seed=3,
        trivium={"trace": True},
    )
    assert body == {
        "model": "trivium",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "max_completion_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "user": "u",
        "top_k": 7,
        "seed": 3,
        "trivium": {"trace": True},
    }


def test_a_conversation_with_calls() -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "1+2, 3+4?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "7"}],
        },
        {"role": "assistant", "content": "3 and 7."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No more."}]},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_text", "text": "b"},
            ],
        },
    ]
    call = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    assert chat(input=items)["messages"] == [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "1+2, 3+4?"},
        {
            "role": "assistant",
            "reasoning": "hm",
            "content": "Let me see.",
            "tool_calls": [{"id": "c1", **call}, {"id": "c2", **call}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": "7"},
        {"role": "assistant", "content": "3 and 7."},
        {"role": "assistant", "content": "No more."},
        {"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]},
    ]


def test_tools() -> None:
    named = {"type": "function", "name": "add"}
    body = chat(tools=[ADD], tool_choice=named, parallel_tool_calls=False)
    function = {key: value for key, value in ADD.items() if key != "type"}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert body["parallel_tool_calls"] is False
    # a choice without tools is nothing that a worker should see
    assert "tool_choice" not in chat(tools=[], tool_choice="auto", parallel_tool_calls=True)


def test_formats() -> None:
    schema = {"type": "object"}
    format = {"type": "json_schema", "name": "point", "schema": schema, "strict": True}
    assert chat(text={"format": format})["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "point", "schema": schema, "strict": True},
    }
    assert chat(text={"format": {"type": "json_object"}})["response_format"] == {
        "type": "json_object"
    }
    assert "response_format" not in chat(text={"format": {"type": "text"}, "verbosity": "low"})


def test_logprobs_reasoning_truncation() -> None:
    assert chat(top_logprobs=2) | {"logprobs": True, "top_logprobs": 2} == chat(top_logprobs=2)
    assert chat(include=["message.output_text.logprobs"])["logprobs"] is True
    assert chat(reasoning={"effort": "low"})["reasoning_effort"] == "low"
    assert chat(truncation="auto")["truncate_prompt_tokens"] == -1


@pytest.mark.parametrize(
    ("fields", "param", "says_so"),
    [
        ({"input": None}, "input", ""),
        ({"input": ""}, "input", ""),
        ({"input": []}, "input", ""),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0", "item_reference"),
        ({"temperature": 3}, "temperature", ""),
        ({"max_output_tokens": 0}, "max_output_tokens", ""),
        ({"previous_response_id": "r"}, "previous_response_id", "whole conversation"),
        ({"conversation": "c"}, "conversation", "whole conversation"),
        ({"conversation": {"id": "c"}}, "conversation", "whole conversation"),
        ({"prompt": {"id": "p"}}, "prompt", "templates"),
        ({"background": True}, "background", "while you wait"),
        ({"tools": [{"type": "web_search"}]}, "tools", "web_search"),
        ({"stop": [""]}, "stop.0", ""),
        ({"trivium": {"experts": ["nobody"]}}, "trivium.experts", "nobody"),
    ],
)
async def test_refused(world: World, fields: dict[str, Any], param: str, says_so: str) -> None:
    response = await world.http.post(PATH, json={"model": "trivium", "input": "Hi"} | fields)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert says_so in error["message"]
    assert not world.meta.received


async def test_images_are_refused_by_name(world: World) -> None:
    part = {"type": "input_image", "image_url": "http://x/y.png"}
    response = await world.http.post(PATH, json={"input": [{"role": "user", "content": [part]}]})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("input.0")
    assert "text" in response.json()["error"]["message"]


def test_what_is_not_kept_may_be_left_empty() -> None:
    assert chat(**dict.fromkeys(NOT_KEPT)) == chat(background=False) == chat()


# ---------------------------------------------------------------- answers


async def test_handed_over_in_mid_answer(world: World) -> None:
    world.meta.behave = says("It is ", CALL)
    world.arithmetic.behave = says("42", "!")
    body = await respond(world, metadata={"k": "v"}, trivium={"trace": True})
    (item,) = body["output"]
    assert item["content"][0]["text"] == "It is 42!"
    assert (body["status"], item["status"]) == ("completed", "completed")
    assert body["metadata"] == {"k": "v"}
    assert body["store"] is False
    assert body["usage"]["input_tokens"] == 20
    assert body["usage"]["total_tokens"] == 24
    assert [s["model"] for s in body["trivium"]["segments"]] == ["meta", "arithmetic"]
    assert "trivium" not in await respond(world)


async def test_events_of_a_text(world: World) -> None:
    world.meta.behave = says("It is ", CALL)
    world.arithmetic.behave = says("42")
    events = await stream(world, metadata={"k": "v"})
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    assert events[2]["item"]["content"] == []
    assert [e["delta"] for e in events if "delta" in e] == ["It is ", "42"]
    assert events[6]["text"] == "It is 42"
    last = events[-1]["response"]
    assert last["output"] == [events[-2]["item"]]
    assert last["usage"]["output_tokens"] == 3
    whole = await respond(world, metadata={"k": "v"})
    for body in (last, whole):
        for changing in (body, body["output"][0]):
            del changing["id"]
    assert last | {"created_at": 0} == whole | {"created_at": 0}


async def test_calls(world: World) -> None:
    world.meta.behave = says(CALL)
    world.arithmetic.behave = says(*TOOL_CALL, finish_reason="tool_calls")
    body = await respond(world, tools=[ADD])
    (call,) = body["output"]
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "add", '{"a": 1}')
    assert call["status"] == "completed"
    events = await stream(world, tools=[ADD])
    assert "".join(e["delta"] for e in events if "delta" in e) == '{"a": 1}'
    done = next(e for e in events if e["type"] == "response.function_call_arguments.done")
    assert done["arguments"] == '{"a": 1}'
    assert events[-1]["response"]["output"][0]["call_id"] == call["call_id"]


async def test_cut_at_the_budget(world: World) -> None:
    world.meta.behave = says("a", "b", "c")
    body = await respond(world, max_output_tokens=2)
    assert (body["status"], body["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert body["output"][0]["status"] == "incomplete"
    events = await stream(world, max_output_tokens=2)
    assert events[-1]["type"] == "response.incomplete"


async def test_logprobs(world: World) -> None:
    world.meta.behave = says("ü")
    body = await respond(world, top_logprobs=1)
    first, _ = body["output"][0]["content"][0]["logprobs"]
    assert first == {"token": "ü", "bytes": [195, 188], "logprob": -0.5, "top_logprobs": []}
    events = await stream(world, top_logprobs=1)
    deltas = [entry["token"] for e in events if "delta" in e for entry in e["logprobs"]]
    assert deltas == ["ü", "<eos>"]


async def test_a_broken_stream_ends_with_a_failed_response(world: World) -> None:
    world.meta.behave = says("one ", failure="error", fail_after=1)
    *_, last = await stream(world)
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error"
    assert "0xdead" not in last["response"]["error"]["message"]
    assert last["response"]["output"][0]["content"][0]["text"].startswith("one ")
    response = await world.http.post(PATH, json={"input": "Hi"})
    assert response.status_code in (502, 503), "503: its breaker is open"
    assert response.json()["error"]["code"] in ("upstream_failed", "not_ready")


async def test_errors_before_the_first_event_have_their_status(world: World) -> None:
    await world.meta.stop()
    response = await world.http.post(PATH, json={"input": "Hi", "stream": True})
    assert response.status_code == 502


# ---------------------------------------------------------------- the machine


def run(*events: Any) -> tuple[list[dict[str, Any]], ResponseMachine]:
    """What the events give, copied as it was then."""
    machine = ResponseMachine(ResponsesRequest(input="Hi"))
    given: list[BaseModel] = []
    for event in events:
        given += [e.model_copy(deep=True) for e in machine.on(event)]
    given += machine.end()
    return [event.model_dump() for event in given], machine


def tool_call(index: int, arguments: str, **fields: Any) -> RawDelta:
    function = {"name": f"f{index}", "arguments": arguments}
    return RawDelta({"tool_calls": [{"index": index, "function": function, **fields}]})


def test_reasoning_text_and_calls_are_items() -> None:
    _, machine = run(
        RawDelta({"reasoning": "h"}),
        RawDelta({"reasoning_content": "m"}),
        TextDelta("a"),
        TextDelta("b"),
        tool_call(0, "{", id="c0"),
        tool_call(0, "}"),
        Finished("tool_calls"),
        Usage(1, 2, 3, 4),
    )
    reasoning, message, call = machine.response.output
    assert isinstance(reasoning, ReasoningItem)
    assert reasoning.content[0].text == "hm"
    assert isinstance(message, OutputMessage)
    assert message.content[0].text == "ab"
    assert isinstance(call, FunctionCall)
    assert (call.call_id, call.arguments) == ("c0", "{}")
    assert {item.status for item in machine.response.output} == {"completed"}
    usage = machine.response.usage
    assert usage
    assert usage.input_tokens_details.cached_tokens == 3
    assert usage.output_tokens_details.reasoning_tokens == 4


async def test_a_refusal_by_the_chosen_expert_has_its_status(world: World) -> None:
    world.meta.behave = in_turn(says(CALL), refuses(400, "no such schema"))
    world.arithmetic.behave = refuses(400, "no such schema")
    body = {"model": "trivium", "input": "Hi", "stream": True, "tools": [ADD]}
    response = await world.http.post(PATH, json=body)
    assert response.status_code == 400
    assert "no such schema" in response.json()["error"]["message"]


def test_parallel_calls_may_alternate() -> None:
    events, machine = run(
        tool_call(0, "a", id="c0"), tool_call(1, "x", id="c1"), tool_call(0, "b"), tool_call(1, "y")
    )
    arguments = [item.arguments for item in machine.response.output]  # type: ignore[union-attr]
    assert arguments == ["ab", "xy"]
    deltas = [(e["output_index"], e["delta"]) for e in events if "delta" in e]
    assert deltas == [(0, "a"), (0, "b"), (1, "x"), (1, "y")]


def test_every_item_is_added_before_it_is_done() -> None:
    events, _ = run(TextDelta("a"), tool_call(0, "{}", id="c0"), TextDelta("b"))
    steps = [(e["type"].rpartition(".")[2], e["output_index"]) for e in events if "item" in e]
    assert steps == [
        ("added", 0),
        ("done", 0),
        ("added", 1),
        ("done", 1),
        ("added", 2),
        ("done", 2),
    ]


def test_an_empty_answer_is_an_empty_message() -> None:
    _, machine = run(Finished("stop"))
    (item,) = machine.response.output
    assert isinstance(item, OutputMessage)
    assert item.content[0].text == ""


def test_a_failure_leaves_its_item_incomplete() -> None:
    machine = ResponseMachine(ResponsesRequest(input="Hi"))
    list(machine.on(TextDelta("a")))
    (last,) = machine.failed(UpstreamFailed("gone"))
    assert last.type == "response.failed"
    assert machine.response.output[0].status == "incomplete"


# ---------------------------------------------------------------- the official client


async def test_openai_client(world: World) -> None:
    world.meta.behave = says("a", "b")
    async with world.openai() as client:
        whole = await client.responses.create(model="trivium", input="Hi")
        assert whole.output_text == "ab"
        async with client.responses.stream(model="trivium", input="Hi") as events:
            kinds = [event.type async for event in events]
            final = await events.get_final_response()
        assert kinds[-1] == "response.completed"
        assert final.output_text == "ab"
        with pytest.raises(openai.BadRequestError, match="whole conversation"):
            await client.responses.create(
                model="trivium", input="Hi", previous_response_id=whole.id
            )
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(whole.id)


async def test_openai_client_goes_on_with_its_own_output(world: World) -> None:
    """The items that a client gets may be sent back as they are."""
    world.meta.behave = in_turn(says(CALL), says("done"))
    world.arithmetic.behave = says(*TOOL_CALL, finish_reason="tool_calls")
    tools: Any = [ADD]
    async with world.openai() as client:
        first = await client.responses.create(model="trivium", input="1+2?", tools=tools)
        (call,) = first.output
        items: Any = [
            {"role": "user", "content": "1+2?"},
            *first.output,
            {"type": "function_call_output", "call_id": call.call_id, "output": "3"},  # type: ignore[union-attr]
        ]
        last = await client.responses.create(model="trivium", input=items)
    assert last.output_text == "done"
    sent = world.meta.bodies[-1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
