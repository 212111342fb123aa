"""Routing and handoff, over real HTTP between client, orchestrator and fake workers."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.fakes import ExpertToken, Reply, Token, in_turn, says
from tests.server.conftest import ARITHMETIC, ASTRONOMY, World, until

CALL = ExpertToken(ARITHMETIC)
CALL_ASTRONOMY = ExpertToken(ASTRONOMY)
USER = {"role": "user", "content": "Hi"}
WORKER_STREAM = {
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}


def content(body: dict[str, Any], index: int = 0) -> str:
    text = body["choices"][index]["message"]["content"]
    assert isinstance(text, str)
    return text


async def test_unrouted_answer_comes_from_the_meta(world: World) -> None:
    world.meta.behave = says("Par", "is", ".")
    body = await world.answer(temperature=0.5, top_k=7)
    assert content(body) == "Paris."
    assert body["model"] == "trivium"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    assert not world.arithmetic.received
    assert world.meta.bodies == [
        {
            "model": "meta-model",
            "messages": [USER],
            "temperature": 0.5,
            "top_k": 7,
            "stop_token_ids": [ARITHMETIC, ASTRONOMY],
            "vllm_xargs": {
                "trivium_experts": [ARITHMETIC, ASTRONOMY],
                "trivium_position": "anywhere",
            },
            **WORKER_STREAM,
        }
    ]


async def test_routed_at_the_first_token(world: World) -> None:
    world.meta.behave = says(CALL)
    world.arithmetic.behave = says("4", "2")
    body = await world.answer(seed=3, temperature=0.0, logit_bias={"5": 1})
    assert content(body) == "42"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert "stop_reason" not in body["choices"][0] or body["choices"][0]["stop_reason"] is None
    assert world.arithmetic.bodies == [
        {
            "model": "arithmetic-model",
            "messages": [USER],
            "seed": 3,
            "temperature": 0.0,
            **WORKER_STREAM,
        }
    ]
    # two prompts, "4" "2" and the expert's end of sequence; the expert token is not counted
    assert body["usage"] == {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23}


async def test_the_expert_token_is_not_shown_with_stop_strings(world: World) -> None:
    await world.answer(include_stop_str_in_output=True, skip_special_tokens=False, stop="#")
    assert "skip_special_tokens" not in world.meta.bodies[0]
    await world.answer(skip_special_tokens=False)
    assert world.meta.bodies[1]["skip_special_tokens"] is False


async def test_handoff_in_mid_answer(world: World) -> None:
    world.meta.behave = says("The sum ", "is ", CALL, "unknown")
    world.arithmetic.behave = says("42", ".")
    body = await world.answer(max_tokens=50)
    assert content(body) == "The sum is 42."
    assert world.arithmetic.bodies == [
        {
            "model": "arithmetic-model",
            "messages": [USER, {"role": "assistant", "content": "The sum is "}],
            "continue_final_message": True,
            "add_generation_prompt": False,
            "max_tokens": 48,
            **WORKER_STREAM,
        }
    ]
    assert body["usage"] == {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


async def test_an_unfinished_turn_of_the_client_is_continued(world: World) -> None:
    world.meta.behave = says("sum is ", CALL)
    parts = [{"type": "text", "text": "The "}]
    messages = [USER, {"role": "assistant", "content": parts}]
    await world.answer(messages=messages, continue_final_message=True, add_generation_prompt=False)
    assert world.meta.bodies[0]["messages"] == messages
    continued = world.arithmetic.bodies[0]
    assert continued["messages"] == [
        USER,
        {"role": "assistant", "content": [{"type": "text", "text": "The sum is "}]},
    ]
    assert continued["continue_final_message"] is True


async def test_stream_equals_non_stream(world: World) -> None:
    world.meta.behave = says("Größe ", "🌒 ", CALL, "x")
    world.arithmetic.behave = says("is ", "42", ".")
    whole = await world.answer(logprobs=True)
    streamed = await world.stream(logprobs=True, stream_options={"include_usage": True})
    assert streamed.text() == content(whole) == "Größe 🌒 is 42."
    assert streamed.finish() == ["stop"]
    assert streamed.done
    *chunks, last = streamed.chunks
    assert last["usage"] == whole["usage"]
    assert last["choices"] == []
    assert all(chunk["usage"] is None for chunk in chunks)
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in streamed.chunks}) == 1
    assert [bool(c["delta"].get("role")) for c in streamed.choices] == [True] + [False] * (
        len(streamed.choices) - 1
    )
    tokens = [
        e["token"] for c in streamed.choices for e in (c.get("logprobs") or {}).get("content", ())
    ]
    assert tokens == [e["token"] for e in whole["choices"][0]["logprobs"]["content"]]
    assert tokens == ["Größe ", "🌒 ", "is ", "42", ".", "<eos>"]


async def test_no_usage_and_no_trace_unless_asked(world: World) -> None:
    streamed = await world.stream()
    assert all("usage" not in c and "trivium" not in c for c in streamed.chunks)
    assert all(c["choices"] for c in streamed.chunks)
    assert "trivium" not in await world.answer()


async def test_budget_is_one_across_the_seam(world: World) -> None:
    world.meta.behave = says("a", "b", "c", CALL)
    world.arithmetic.behave = says("1", "2", "3", "4", "5")
    body = await world.answer(max_completion_tokens=5, max_tokens=99)
    assert content(body) == "abc12"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 5
    assert world.arithmetic.bodies[0]["max_tokens"] == 2


async def test_expert_token_as_the_only_token_of_the_budget(world: World) -> None:
    world.meta.behave = says(CALL)
    body = await world.answer(max_tokens=1)
    assert content(body) == "42"
    assert body["usage"]["completion_tokens"] == 1


async def test_stop_string_across_the_seam(world: World) -> None:
    world.meta.behave = says("one EN", CALL)
    world.arithmetic.behave = says("D", " two", delay=0.01)
    whole = await world.answer(stop=["END"])
    streamed = await world.stream(stop="END")
    for text, choice in (
        (content(whole), whole["choices"][0]),
        (streamed.text(), streamed.choices[-1]),
    ):
        assert text == "one "
        assert choice["finish_reason"] == "stop"
        assert choice["stop_reason"] == "END"
    assert world.arithmetic.bodies[0]["stop"] == ["END"]
    assert world.arithmetic.bodies[0]["messages"][-1]["content"] == "one EN"
    # "one EN", "D", and " two": a worker with stop strings holds the last characters back
    assert whole["usage"]["completion_tokens"] == 3
    assert world.arithmetic.received[0].aborted


async def test_text_like_a_stop_string_is_not_lost(world: World) -> None:
    world.meta.behave = says("one EN", CALL)
    world.arithmetic.behave = says("TER", " E")
    assert content(await world.answer(stop=["END"])) == "one ENTER E"


async def test_stop_string_within_a_leg(world: World) -> None:
    world.meta.behave = says("a", CALL)
    world.arithmetic.behave = says("b", "#", "#", "c")
    body = await world.answer(stop=["##"])
    assert content(body) == "ab"
    assert body["choices"][0]["stop_reason"] == "##"


async def test_every_choice_is_routed_on_its_own(world: World) -> None:
    def behave(body: dict[str, Any]) -> Reply:
        answers: dict[int, list[Token]] = {7: ["plain"], 8: [CALL], 9: ["mid ", CALL_ASTRONOMY]}
        return Reply(answers[body["seed"]])

    world.meta.behave = behave
    body = await world.answer(n=3, seed=7)
    assert [content(body, index) for index in range(3)] == ["plain", "42", "mid Moon"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert world.arithmetic.bodies[0]["seed"] == 8
    # the shared prompt once, and one for each of the two experts
    assert body["usage"]["prompt_tokens"] == 30
    assert body["usage"]["completion_tokens"] == 2 + 2 + 3
    streamed = await world.stream(n=3, seed=7)
    assert [streamed.text(index) for index in range(3)] == ["plain", "42", "mid Moon"]
    assert [streamed.finish(index) for index in range(3)] == [["stop"]] * 3


async def test_min_tokens_counts_both_models(world: World) -> None:
    world.meta.behave = says("a", "b", CALL)
    await world.answer(min_tokens=3)
    assert world.meta.bodies[0]["min_tokens"] == 3
    assert world.arithmetic.bodies[0]["min_tokens"] == 1


async def test_seed_offset_stays_a_64_bit_number(world: World) -> None:
    await world.answer(n=2, seed=2**63 - 1)
    assert sorted(b["seed"] for b in world.meta.bodies) == [-(2**63), 2**63 - 1]


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
TOOL_CALL = [
    {"tool_calls": [{"index": 0, "id": "c1", "type": "function",
                     "function": {"name": "add", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]},
]  # fmt: skip


async def test_tools_decide_first_then_pass_through(world: World) -> None:
    world.meta.behave = says(CALL)
    world.arithmetic.behave = says(*TOOL_CALL, finish_reason="tool_calls")
    body = await world.answer(tools=TOOLS, tool_choice="auto", max_tokens=30, stop=["x"])
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
        ],
    }
    decision = world.meta.bodies[0]
    assert decision["max_tokens"] == 1
    assert decision["vllm_xargs"]["trivium_position"] == "start"
    assert not {"tools", "tool_choice", "stop", "response_format"} & decision.keys()
    assert len(world.meta.bodies) == 1
    assert world.arithmetic.bodies == [
        {
            "model": "arithmetic-model",
            "messages": [USER],
            "tools": TOOLS,
            "tool_choice": "auto",
            "max_tokens": 30,
            "stop": ["x"],
            **WORKER_STREAM,
        }
    ]
    streamed = await world.stream(tools=TOOLS)
    calls = [c["delta"]["tool_calls"] for c in streamed.choices if "tool_calls" in c["delta"]]
    assert calls == [delta["tool_calls"] for delta in TOOL_CALL]


async def test_grammar_stays_at_the_meta_if_it_decides_so(world: World) -> None:
    world.meta.behave = in_turn(says("ignored"), says('{"a"', ": 1}"))
    body = await world.answer(response_format={"type": "json_object"})
    assert content(body) == '{"a": 1}'
    decision, whole = world.meta.bodies
    assert "response_format" not in decision
    assert whole["response_format"] == {"type": "json_object"}
    assert "vllm_xargs" not in whole
    assert "stop_token_ids" not in whole
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}


async def test_text_response_format_is_routed_as_usual(world: World) -> None:
    world.meta.behave = says("a ", CALL)
    body = await world.answer(response_format={"type": "text"})
    assert content(body) == "a 42"


async def test_pinned_models_are_not_routed(world: World) -> None:
    world.meta.behave = says("meta ", CALL, "alone")
    body = await world.answer(model="trivium/meta")
    assert (content(body), body["model"]) == ("meta alone", "trivium/meta")
    assert not {"vllm_xargs", "stop_token_ids"} & world.meta.bodies[0].keys()
    body = await world.answer(model="trivium/arithmetic", logit_bias={"5": 1}, tools=TOOLS)
    assert (content(body), body["model"]) == ("42", "trivium/arithmetic")
    assert world.arithmetic.bodies[0]["logit_bias"] == {"5": 1}
    assert len(world.meta.received) == 1


async def test_without_experts_the_request_is_plain(world: World) -> None:
    world.snapshots.publish(world.meta.endpoints, ())
    await world.answer()
    assert world.meta.bodies == [{"model": "meta-model", "messages": [USER], **WORKER_STREAM}]


async def test_trivium_options_reach_the_gate_only(world: World) -> None:
    world.meta.behave = says(CALL, CALL_ASTRONOMY)
    options = {"experts": ["astronomy"], "position": "start", "bias": {"astronomy": 1.5}}
    xargs = {"mine": 1, "trivium_experts": [5], "trivium_bias": [9]}
    body = await world.answer(trivium=options, stop_token_ids=[3], vllm_xargs=xargs)
    assert content(body) == "Moon"
    asked = world.meta.bodies[0]
    assert "trivium" not in asked
    assert asked["stop_token_ids"] == [3, ASTRONOMY]
    assert asked["vllm_xargs"] == {
        "mine": 1,
        "trivium_experts": [ASTRONOMY],
        "trivium_position": "start",
        "trivium_bias": [1.5],
    }
    assert world.astronomy.bodies[0]["vllm_xargs"] == {"mine": 1}
    assert "stop_token_ids" not in world.astronomy.bodies[0]


async def test_bias_follows_the_order_of_the_experts(world: World) -> None:
    await world.answer(trivium={"bias": {"astronomy": 2}})
    assert world.meta.bodies[0]["vllm_xargs"]["trivium_bias"] == [0.0, 2.0]


async def test_trace_tells_who_wrote_what(world: World) -> None:
    world.meta.behave = says("The sum is ", CALL, delay=0.02)
    world.arithmetic.behave = says("42", ".", delay=0.02)
    whole = await world.answer(trivium={"trace": True})
    streamed = await world.stream(trivium={"trace": True})
    assert whole["choices"][0]["logprobs"] is None
    for trace in (whole["trivium"], streamed.chunks[-1]["trivium"]):
        meta, expert = trace["segments"]
        assert (meta["model"], meta["start"], meta["end"], meta["tokens"]) == ("meta", 0, 11, 1)
        assert (expert["model"], expert["start"], expert["end"]) == ("arithmetic", 11, 14)
        assert (meta["outcome"], expert["outcome"]) == ("handoff", "finished")
        assert expert["decision"]["token_id"] == ARITHMETIC
        assert expert["decision"]["probability"] == 0.75
        assert meta["chances"] == {"arithmetic": 0.75, "astronomy": 0.125}
        assert "chances" not in expert
        assert 0 <= meta["start_ms"] < meta["end_ms"] <= expert["start_ms"] < expert["end_ms"]
        assert expert["start_ms"] <= expert["first_ms"] <= expert["end_ms"]
        assert meta["end_ms"] >= 20


async def test_two_users_at_once_do_not_mix(world: World) -> None:
    def behave(body: dict[str, Any]) -> Reply:
        name = body["messages"][0]["content"]
        return Reply([f"{name} {i} " for i in range(5)] + [CALL], delay=0.005)

    def expert(body: dict[str, Any]) -> Reply:
        return Reply([f"{body['messages'][0]['content']}!"] * 3, delay=0.005)

    world.meta.behave, world.arithmetic.behave = behave, expert
    names = ["Ann", "Bob", "Eve", "Joe"]
    answers = await asyncio.gather(*(world.stream(name) for name in names))
    for name, answer in zip(names, answers, strict=True):
        assert answer.text() == "".join(f"{name} {i} " for i in range(5)) + f"{name}!" * 3


async def test_a_request_keeps_its_snapshot_and_its_tokens(world: World) -> None:
    world.meta.behave = says("a ", "b ", CALL, delay=0.05)
    task = asyncio.create_task(world.answer())
    await until(lambda: world.meta.received)
    world.snapshots.publish(world.meta.endpoints, ())
    assert world.snapshots.token_in_use(ARITHMETIC)
    assert content(await task) == "a b 42"
    assert not world.snapshots.token_in_use(ARITHMETIC)


async def test_headers_of_the_client_stay_here(world: World) -> None:
    response = await world.http.post(
        "/v1/chat/completions",
        json={"messages": [USER], "request_id": "mine", "kv_transfer_params": {"a": 1}},
        headers={"Authorization": "Bearer secret", "X-Mine": "1", "X-Request-Id": "x"},
    )
    assert response.headers["x-request-id"] == "x"
    received = world.meta.received[0]
    assert not {"Authorization", "X-Mine", "X-Request-Id"} & received.headers.keys()
    assert not {"request_id", "kv_transfer_params"} & received.body.keys()
