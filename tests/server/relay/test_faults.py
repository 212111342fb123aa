"""Workers that refuse, break, stall or vanish, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest

from server.relay.handoff import MAX_FAILURES
from tests.fakes import ExpertToken, FakeWorker, continues, in_turn, refuses, says
from tests.server.conftest import ARITHMETIC, ASTRONOMY, World, request
from tests.server.relay.test_dispatch import CALL, CALL_ASTRONOMY, TOOLS, content

BROKEN = ["cut", "close", "error", "garbage", "abort", "stall"]
TOO_LONG = "This model's maximum context length is 64 tokens. However, your prompt contains 99."


def allowed(body: dict[str, Any]) -> list[int]:
    """The expert tokens that a request to the meta allows."""
    ids: list[int] = body.get("vllm_xargs", {}).get("trivium_experts", [])
    assert body.get("stop_token_ids", []) == ids
    return ids


async def test_dead_expert_before_the_first_byte(world: World) -> None:
    world.meta.behave = says(CALL, "meta's own")
    await world.arithmetic.stop()
    body = await world.answer(trivium={"trace": True})
    assert content(body) == "meta's own"
    assert [allowed(b) for b in world.meta.bodies] == [[ARITHMETIC, ASTRONOMY], [ASTRONOMY]]
    assert "continue_final_message" not in world.meta.bodies[1]
    outcomes = [(s["model"], s["outcome"]) for s in body["trivium"]["segments"]]
    assert outcomes == [("meta", "handoff"), ("arithmetic", "failed"), ("meta", "finished")]
    assert str(world.arithmetic.endpoint.base_url) not in str(body)


@pytest.mark.parametrize("how", BROKEN)
async def test_expert_broken_in_mid_text(world: World, how: Any) -> None:
    world.meta.behave = continues("The ", "sum ", CALL, "is ", "42", ".")
    world.arithmetic.behave = says("is ", "4", "1", failure=how, fail_after=2)
    streamed = await world.stream(max_tokens=20)
    assert streamed.text() == "The sum is 42."
    assert streamed.finish() == ["stop"]
    resumed = world.meta.bodies[1]
    assert resumed["messages"][-1] == {"role": "assistant", "content": "The sum is 4"}
    assert resumed["max_tokens"] == 16
    assert allowed(resumed) == [ASTRONOMY]
    assert resumed["vllm_xargs"]["trivium_midway"] == 1
    assert len(world.meta.received) == 2


async def test_an_answer_is_resumed_after_a_whole_sentence_as_if_it_began_there(
    world: World,
) -> None:
    world.meta.behave = in_turn(says("A star.", CALL), says(" It shines."))
    world.arithmetic.behave = refuses(500, "boom")
    assert content(await world.answer()) == "A star. It shines."
    assert "trivium_midway" not in world.meta.bodies[1]["vllm_xargs"]


async def test_lost_expert_then_another(world: World) -> None:
    world.meta.behave = in_turn(says("a ", CALL), says(CALL, CALL_ASTRONOMY))
    world.arithmetic.behave = refuses(500, "boom")
    assert content(await world.answer()) == "a Moon"
    assert world.astronomy.bodies[0]["messages"][-1]["content"] == "a "


async def test_meta_broken_in_mid_text_is_resumed(world: World) -> None:
    text = says("one ", "two ", failure="cut", fail_after=1)
    world.meta.behave = in_turn(text, continues("one ", "two ", "three"))
    body = await world.answer()
    assert content(body) == "one two three"
    assert body["usage"]["completion_tokens"] == 1 + 3


async def test_what_cannot_be_saved_ends_with_one_error_event(world: World) -> None:
    world.meta.behave = says("one ", "two ", failure="error", fail_after=1)
    streamed = await world.stream()
    assert streamed.done
    assert streamed.finish() == []
    errors = [chunk["error"] for chunk in streamed.chunks if "error" in chunk]
    assert [e["code"] for e in errors] == ["upstream_failed"]
    assert "0xdead" not in str(errors)
    legs = [body for body in world.meta.bodies if "max_tokens" not in body]  # no probes
    assert len(legs) == MAX_FAILURES
    refused = await world.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")


async def test_prompt_too_long_for_the_expert(world: World) -> None:
    world.meta.behave = says("a ", CALL, "b")
    world.arithmetic.behave = refuses(400, TOO_LONG)
    assert content(await world.answer()) == "a a b"
    assert allowed(world.meta.bodies[1]) == [ASTRONOMY]


async def test_budget_too_large_for_the_expert_only(world: World) -> None:
    def expert(body: dict[str, Any]) -> Any:
        return (refuses(400, TOO_LONG) if "max_tokens" in body else says("42"))(body)

    world.meta.behave, world.arithmetic.behave = says("a ", CALL, "b"), expert
    assert content(await world.answer(max_tokens=5000)) == "a 42"
    assert [b.get("max_tokens") for b in world.arithmetic.bodies] == [4999, None]
    assert len(world.meta.received) == 1


async def test_tools_fall_back_to_the_meta_before_the_first_byte(world: World) -> None:
    world.meta.behave = in_turn(says(CALL), says("no tool needed"))
    await world.arithmetic.stop()
    assert content(await world.answer(tools=TOOLS)) == "no tool needed"
    assert world.meta.bodies[1]["tools"] == TOOLS


async def test_tools_are_not_resumed(world: World) -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]}
    world.meta.behave = says(CALL)
    world.arithmetic.behave = says(call, failure="cut", fail_after=1)
    streamed = await world.stream(tools=TOOLS)
    assert [c["error"]["code"] for c in streamed.chunks if "error" in c] == ["upstream_failed"]
    assert len(world.meta.received) == 1


async def test_meta_down(world: World) -> None:
    await world.meta.stop()
    for stream in (False, True):
        response = await world.ask(stream=stream)
        assert response.status_code == 502
        error = response.json()["error"]
        assert error["type"] == "upstream_error"
        assert error["code"] == "upstream_failed"
        assert "127.0.0.1" not in error["message"]


async def test_meta_not_up_yet(world: World) -> None:
    world.snapshots.publish((), ())
    response = await world.ask(stream=True)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["code"] == "not_ready"


async def test_silent_meta_times_out(world: World) -> None:
    world.meta.behave = says("x", failure="stall", fail_after=0)
    response = await world.ask()
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "upstream_timeout"


@pytest.mark.parametrize(
    ("status", "message", "seen", "code"),
    [
        (400, "top_k must\nbe  nice", 400, None),
        (400, TOO_LONG, 400, "context_length_exceeded"),
        (422, "no", 422, None),
        (401, "bad key sk-123", 502, "upstream_failed"),
        (404, "The model `x` does not exist", 502, "upstream_failed"),
        (503, "overloaded", 502, "upstream_failed"),
    ],
)
async def test_refusals_of_the_meta(
    world: World, status: int, message: str, seen: int, code: str | None
) -> None:
    world.meta.behave = refuses(status, message, param="top_k")
    response = await world.ask(stream=True, max_tokens=5)
    assert response.status_code == seen
    error = response.json()["error"]
    assert error["code"] == code
    passed = seen == status
    assert (error["message"] == " ".join(message.split())) == passed
    assert (error["param"] == "top_k") == passed
    assert len(world.meta.received) == 1


async def test_error_event_as_first_event_is_a_status(world: World) -> None:
    world.meta.behave = says(failure="error", fail_after=0)
    assert (await world.ask(stream=True)).status_code == 502


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("where", ["meta", "expert", "choices"])
async def test_a_client_that_leaves_frees_the_workers(
    world: World, stream: bool, where: str
) -> None:
    slow = says(*["word "] * 1000, delay=0.01)
    worker: FakeWorker = world.meta
    if where == "expert":
        world.meta.behave, worker = says(ExpertToken(ARITHMETIC)), world.arithmetic
    worker.behave = slow
    body = request(stream=stream, n=3 if where == "choices" else 1)
    with contextlib.suppress(httpx.ReadTimeout):
        async with world.http.stream(
            "POST", "/v1/chat/completions", json=body, timeout=0.3
        ) as response:
            async for _ in response.aiter_bytes():
                if len(worker.received) == body["n"]:
                    break
    assert len(worker.received) == body["n"]
    await asyncio.wait_for(asyncio.gather(*(r.over.wait() for r in worker.received)), 1)
    assert all(r.aborted for r in worker.received)
    assert not world.snapshots.token_in_use(ARITHMETIC)


async def test_a_client_that_leaves_before_the_first_byte(world: World) -> None:
    world.meta.behave = says("x", delay=30)
    with pytest.raises(httpx.ReadTimeout):
        await world.http.post("/v1/chat/completions", json=request(stream=True), timeout=0.2)
    await asyncio.wait_for(world.meta.received[0].over.wait(), 1)
    assert world.meta.received[0].aborted


async def test_a_worker_that_lingers_after_its_answer(world: World) -> None:
    """The finish reason is known: what does not follow in time is not waited for."""
    world.meta.behave = says("Hi", linger=30)
    started = asyncio.get_running_loop().time()
    body = await world.answer()
    assert content(body) == "Hi"
    assert body["usage"]["completion_tokens"] == 2
    assert asyncio.get_running_loop().time() - started < 1


async def test_a_worker_that_reports_no_usage(world: World) -> None:
    """Deltas are counted instead, also against the budget."""
    world.meta.behave = says("a", "b", CALL, usage=False)
    world.arithmetic.behave = says("c", "d", usage=False)
    body = await world.answer(max_tokens=10)
    assert body["usage"]["completion_tokens"] == 4
    assert world.arithmetic.bodies[0]["max_tokens"] == 8
