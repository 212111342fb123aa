"""`/v1/completions`: raw prompts, over real HTTP between client, orchestrator and fake workers."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import ValidationError

from server.api.completions.logprobs import OffsetLogprobs, chat_choice
from server.api.completions.schemas import MAX_COMPLETIONS, CompletionRequest
from tests.fakes import Reply, continues, in_turn, says
from tests.server.conftest import World
from tests.server.relay.test_dispatch import CALL, WORKER_STREAM

PATH = "/v1/completions"


async def complete(world: World, prompt: Any = "Q:", **fields: Any) -> dict[str, Any]:
    response = await world.http.post(PATH, json={"model": "trivium", "prompt": prompt} | fields)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def stream(world: World, prompt: Any = "Q:", **fields: Any) -> list[Any]:
    body = {"model": "trivium", "prompt": prompt, "stream": True} | fields
    response = await world.http.post(PATH, json=body)
    assert response.status_code == 200, response.text
    *lines, done = response.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def text(chunks: list[Any], index: int = 0) -> str:
    return "".join(c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == index)


async def test_the_meta_writes_and_no_expert_is_called(world: World) -> None:
    world.meta.behave = says("a ", CALL, "b")
    body = await complete(world, seed=3, top_k=7)
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["choices"] == [
        {"index": 0, "text": "a b", "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    assert not world.arithmetic.received
    assert world.meta.bodies == [
        {
            "model": "meta-model",
            "prompt": "Q:",
            "seed": 3,
            "top_k": 7,
            "max_tokens": 16,
            **WORKER_STREAM,
        }
    ]


async def test_a_pinned_expert_takes_token_ids(world: World) -> None:
    body = await complete(world, [81, 58], model="trivium/arithmetic")
    assert body["choices"][0]["text"] == "42"
    assert world.arithmetic.bodies[0]["prompt"] == [81, 58]


async def test_prompts_times_n(world: World) -> None:
    world.meta.behave = lambda body: Reply([body["prompt"], str(body.get("seed"))])
    body = await complete(world, ["A", "B"], n=2, seed=7)
    assert [c["text"] for c in body["choices"]] == ["A7", "A8", "B7", "B8"]
    assert [c["index"] for c in body["choices"]] == [0, 1, 2, 3]
    # each prompt once
    assert body["usage"]["prompt_tokens"] == 20
    assert body["usage"]["completion_tokens"] == 12
    chunks = await stream(world, ["A", "B"], n=2, seed=7)
    assert [text(chunks, index) for index in range(4)] == ["A7", "A8", "B7", "B8"]


async def test_stream_equals_non_stream(world: World) -> None:
    world.meta.behave = says("Größe ", "🌒")
    whole = await complete(world, logprobs=1)
    *chunks, last = await stream(world, logprobs=1, stream_options={"include_usage": True})
    assert text(chunks) == whole["choices"][0]["text"] == "Größe 🌒"
    assert last["usage"] == whole["usage"]
    assert last["choices"] == []
    assert all(chunk["usage"] is None for chunk in chunks)
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    reasons = [c["choices"][0]["finish_reason"] for c in chunks]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    blocks = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"]]
    joined = {key: [entry for block in blocks for entry in block[key]] for key in blocks[0]}
    assert joined == whole["choices"][0]["logprobs"]
    assert joined["tokens"] == ["Größe ", "🌒", "<eos>"]
    assert joined["text_offset"] == [0, 6, 7]
    assert joined["top_logprobs"][0] == {"Größe ": -0.5}


async def test_no_usage_unless_asked(world: World) -> None:
    assert all("usage" not in chunk for chunk in await stream(world))


async def test_echo_with_logprobs(world: World) -> None:
    world.meta.behave = says("a")
    (choice,) = (await complete(world, echo=True, logprobs=0))["choices"]
    assert choice["text"] == "Q:a"
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -0.5]
    assert choice["logprobs"]["top_logprobs"][0] is None
    assert choice["logprobs"]["text_offset"] == [0, 2, 3]
    assert world.meta.bodies[0]["echo"] is True


async def test_only_the_prompt(world: World) -> None:
    await complete(world, echo=True, max_tokens=0)
    assert world.meta.bodies[0]["max_tokens"] == 0


async def test_budget_and_stop(world: World) -> None:
    world.meta.behave = says("a", "b", "#", "#", "c")
    (short,) = (await complete(world, max_tokens=2))["choices"]
    assert (short["text"], short["finish_reason"]) == ("ab", "length")
    (stopped,) = (await complete(world, stop=["##"]))["choices"]
    assert (stopped["text"], stopped["stop_reason"]) == ("ab", "##")


@pytest.mark.parametrize("echo", [False, True])
async def test_resumed_where_it_broke(world: World, echo: bool) -> None:
    broken = says("one ", "two ", failure="cut", fail_after=1)
    world.meta.behave = in_turn(broken, continues("one ", "two ", "three"))
    (choice,) = (await complete(world, "Q:", echo=echo))["choices"]
    assert choice["text"] == ("Q:" if echo else "") + "one two three"
    again = world.meta.bodies[1]
    assert again["prompt"] == "Q:one "
    assert "echo" not in again
    assert again["max_tokens"] == 15


async def test_text_after_token_ids_is_not_resumed(world: World) -> None:
    world.meta.behave = says("one ", "two ", failure="cut", fail_after=1)
    chunks = await stream(world, [81], model="trivium/meta")
    assert chunks[-1]["error"]["code"] == "upstream_failed"
    assert len(world.meta.received) == 1


async def test_trace(world: World) -> None:
    body = await complete(world, trivium={"trace": True})
    assert [s["model"] for s in body["trivium"]["segments"]] == ["meta"]
    *_, last = await stream(world, trivium={"trace": True})
    assert last["trivium"]["segments"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "gpt-4"}, 404, "model"),
        ({"prompt": None}, 400, "prompt"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": [1, 2]}, 400, None),
        ({"prompt": [[1], [2]]}, 400, None),
        ({"prompt": [-1], "model": "trivium/meta"}, 400, "prompt.0"),
        ({"prompt": ["a"] * (MAX_COMPLETIONS + 1)}, 400, None),
        ({"suffix": "x"}, 400, "suffix"),
        ({"best_of": 2}, 400, None),
        ({"prompt_logprobs": 1}, 400, None),
        ({"max_tokens": 0}, 400, None),
        ({"logprobs": -1}, 400, "logprobs"),
        ({"stream_options": {"include_usage": True}}, 400, None),
        ({"trivium": {"experts": ["arithmetic"]}}, 400, None),
    ],
)
async def test_refused(
    world: World, fields: dict[str, Any], status: int, param: str | None
) -> None:
    response = await world.http.post(PATH, json={"model": "trivium", "prompt": "Q:"} | fields)
    assert response.status_code == status, response.text
    assert response.json()["error"]["param"] == param
    assert response.json()["error"]["message"]
    assert not world.meta.received


async def test_worker_down(world: World) -> None:
    await world.meta.stop()
    for streamed in (False, True):
        response = await world.http.post(PATH, json={"prompt": "Q:", "stream": streamed})
        assert response.status_code == 502


async def test_openai_client(world: World) -> None:
    world.meta.behave = says("a", "b")
    async with world.openai() as client:
        whole = await client.completions.create(
            model="trivium", prompt=["x", "y"], best_of=1, logprobs=2
        )
        assert [c.text for c in whole.choices] == ["ab", "ab"]
        assert whole.choices[0].logprobs
        assert whole.choices[0].logprobs.tokens == ["a", "b", "<eos>"]
        chunks = await client.completions.create(model="trivium", prompt="x", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in chunks]) == "ab"
        with pytest.raises(openai.BadRequestError):
            await client.completions.create(model="trivium", prompt=[1, 2])


def test_a_grammar_binds_the_whole_text() -> None:
    def structured(**fields: Any) -> bool:
        return CompletionRequest(prompt="x", **fields).structured

    assert not structured()
    assert not structured(response_format={"type": "text"})
    assert structured(response_format={"type": "json_object"})
    assert structured(structured_outputs={"regex": "a"})


def test_logprobs_there_and_back() -> None:
    block = {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -1.0],
        "top_logprobs": [None, {"b": -1.0, "c": -2.0}],
        "text_offset": [0, 1],
    }
    choice = chat_choice({"index": 0, "text": "ab", "logprobs": block, "finish_reason": None})
    assert choice["delta"] == {"content": "ab"}
    back = OffsetLogprobs().block(choice["logprobs"])
    assert back is not None
    assert back.model_dump() == block


def test_too_many_in_all() -> None:
    with pytest.raises(ValidationError, match="at most"):
        CompletionRequest(prompt=["a"] * (MAX_COMPLETIONS // 2 + 1), n=2)
