"""What holds for an answer in any of the API's forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from server.edge.limits import METERED_PATHS
from tests.fakes import FakeWorker, says
from tests.server.conftest import World, until

USER = {"role": "user", "content": "Hi"}
FORMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [USER]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": [USER], "max_tokens": 50},
}
every_form = pytest.mark.parametrize("path", FORMS)


def test_every_form_is_metered() -> None:
    assert {*FORMS, "/v1/messages/count_tokens"} == METERED_PATHS


def aborted(worker: FakeWorker) -> Callable[[], bool]:
    return lambda: [request.aborted for request in worker.received] == [True]


@every_form
async def test_a_client_that_leaves_a_stream_frees_the_worker(world: World, path: str) -> None:
    world.meta.behave = says("one ", "two ", failure="stall", fail_after=1)
    async with world.http.stream("POST", path, json=FORMS[path] | {"stream": True}) as response:
        async for line in response.aiter_lines():
            if "one " in line:
                break
    await until(aborted(world.meta))


@every_form
async def test_a_client_that_leaves_before_the_answer_frees_the_worker(
    world: World, path: str
) -> None:
    world.meta.behave = says("one ", failure="stall", fail_after=0)
    with pytest.raises(httpx.ReadTimeout):
        await world.http.post(path, json=FORMS[path], timeout=0.3)
    await until(aborted(world.meta))


@every_form
async def test_an_expert_that_is_down_is_said_to_be(world: World, path: str) -> None:
    world.snapshots.publish(world.meta.endpoints, ())
    response = await world.http.post(path, json=FORMS[path] | {"model": "trivium/arithmetic"})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "arithmetic" in response.json()["error"]["message"]


@every_form
@pytest.mark.parametrize("sent", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
async def test_bodies_that_are_no_request(world: World, path: str, sent: bytes) -> None:
    response = await world.http.post(
        path, content=sent, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["message"]


@every_form
async def test_odd_strings_come_back_as_something_that_can_be_read(world: World, path: str) -> None:
    odd = b'{"metadata": {"user_id": "\\ud800"}, "user": "\\ud800", "instructions": "\\ud800", '
    body = httpx.Request("POST", "http://x", json=FORMS[path]).content
    for stream in (b'"stream": true, ', b""):
        response = await world.http.post(
            path, content=odd + stream + body[1:], headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 200, response.text
        assert "Hello" in response.text


@every_form
async def test_fields_named_like_our_own_do_no_harm(world: World, path: str) -> None:
    """Unknown fields are kept on the request, and must not hide what the server reads from it."""
    strange = {"path": "/elsewhere", "choices": 9, "budget": -1, "options": {}, "structured": 1}
    response = await world.http.post(path, json=FORMS[path] | strange)
    assert response.status_code == 200, response.text
    assert "Hello" in response.text
    assert len(world.meta.received) == 1
