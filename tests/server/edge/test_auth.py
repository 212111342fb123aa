"""Who may call: keys and scopes over HTTP, and web pages kept off a server without keys."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from server.edge.auth import scope_for
from server.edge.keys import KeyStore
from server.settings import Settings
from tests.fake_meta import FakeMeta
from tests.fakes import FakeWorker, says
from tests.server.conftest import request
from tests.server.guarded import bearer, guarded, make_key
from tests.server.workers.test_registration import running

CHAT = "/v1/chat/completions"
MESSAGES: Any = [{"role": "user", "content": "Hi"}]


def check_refusal(response: httpx.Response, status: int, code: str) -> str:
    """An OpenAI error body with a request id; its message."""
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert response.headers["x-request-id"]
    return str(error["message"])


async def test_no_key_and_wrong_keys_are_refused(tmp_path: Path) -> None:
    key, secret = make_key()
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired, expired_secret = make_key("old", expires=past)
    async with guarded(tmp_path, key, expired) as site:
        http = site.world.http
        missing = await http.post(CHAT, json=request())
        assert "trivium keys create" in check_refusal(missing, 401, "invalid_api_key")
        wrong: list[dict[str, str]] = [
            bearer("sk-trivium-no"),
            bearer(expired_secret),
            bearer(secret[:-1]),
            {"Authorization": f"Basic {secret}"},
            {"Authorization": "Bearer"},
            {"x-api-key": "no"},
        ]
        for headers in wrong:
            refused = await http.post(CHAT, json=request(), headers=headers)
            message = check_refusal(refused, 401, "invalid_api_key")
            assert refused.headers["www-authenticate"].startswith("Bearer")
            assert "sk-trivium-no" not in message
            assert expired_secret not in message
        assert not site.world.meta.received


async def test_a_key_is_taken_in_either_header(tmp_path: Path) -> None:
    key, secret = make_key()
    async with guarded(tmp_path, key) as site:
        for headers in (
            bearer(secret),
            {"authorization": f"bEARER  {secret}"},
            {"X-Api-Key": secret},
        ):
            answer = await site.world.http.post(CHAT, json=request(), headers=headers)
            assert answer.status_code == 200
            assert (await site.world.http.get("/v1/models", headers=headers)).status_code == 200


async def test_the_official_client_sees_its_own_errors(tmp_path: Path) -> None:
    key, secret = make_key()
    async with guarded(tmp_path, key) as site:
        base = f"{site.world.url}/v1"
        async with AsyncOpenAI(base_url=base, api_key=secret, max_retries=0) as client:
            answer = await client.chat.completions.create(model="trivium", messages=MESSAGES)
            assert answer.choices[0].message.content == "Hello"
        async with AsyncOpenAI(base_url=base, api_key="sk-wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                await client.chat.completions.create(model="trivium", messages=MESSAGES)
            assert refused.value.code == "invalid_api_key"


async def test_scopes_keep_chat_and_admin_apart(tmp_path: Path) -> None:
    chat, chat_secret = make_key("chat")
    admin, admin_secret = make_key("admin", ["admin"])
    async with guarded(tmp_path, chat, admin) as site:
        http = site.world.http
        refused = await http.get("/v1/experts", headers=bearer(chat_secret))
        assert "lacks the scope 'admin'" in check_refusal(refused, 403, "permission_denied")
        refused = await http.post(CHAT, json=request(), headers=bearer(admin_secret))
        check_refusal(refused, 403, "permission_denied")
        through = await http.get("/v1/experts", headers=bearer(admin_secret))
        assert through.status_code == 404, "this small world has no admin routes"


async def test_what_is_open_tells_strangers_nothing_of_the_models(tmp_path: Path) -> None:
    key, secret = make_key()
    async with guarded(tmp_path, key) as site:
        http = site.world.http
        site.world.status.experts = {"arithmetic": "failed: no such file /home/x"}
        assert (await http.get("/version")).status_code == 200
        stranger = await http.get("/health")
        assert stranger.json() == {"status": "ok"}
        wrong = await http.get("/health", headers=bearer("sk-trivium-x"))
        assert wrong.json() == {"status": "ok"}
        known = await http.get("/health", headers=bearer(secret))
        assert "arithmetic" in known.json()["experts"]


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/", None),
        ("/experts", None),
        ("/experts/x", "admin"),
        ("/health", None),
        ("/livez", None),
        ("/version", None),
        ("/web/abc/main.js", None),
        ("/v1/models", "chat"),
        ("/v1/chat/completions", "chat"),
        ("/v1/experts", "admin"),
        ("/v1/experts/x", "admin"),
        ("/health/x", "admin"),
        ("/webx", "admin"),
        ("/docs", "admin"),
        ("/metrics", "metrics"),
        ("/metrics/targets", "metrics"),
        ("/metrics/x", "admin"),
        ("/v1", "admin"),
        ("//v1/models", "admin"),
    ],
)
def test_what_is_not_known_to_be_open_needs_a_key(path: str, scope: str | None) -> None:
    assert scope_for(path) == scope


async def test_a_refusal_does_not_wait_for_the_body(tmp_path: Path) -> None:
    key, _ = make_key()
    async with guarded(tmp_path, key) as site:
        port = int(site.world.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        writer.write(head.encode())
        line = await asyncio.wait_for(reader.readline(), 2)
        assert b" 401 " in line
        writer.close()


async def test_keys_made_and_revoked_elsewhere_count_without_a_restart(tmp_path: Path) -> None:
    async with (
        FakeMeta() as meta,
        FakeWorker(says("42"), "calc") as expert,
        running(meta, expert, tmp_path, keys="on") as site,
    ):
        store = KeyStore(Settings(state_dir=tmp_path / "state").database)
        _, secret = store.create("alice", ["admin", "chat"])

        async def status() -> int:
            return (await site.http.get("/v1/experts", headers=bearer(secret))).status_code

        async with asyncio.timeout(5):
            while await status() == 401:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert await status() == 200
        assert (await site.http.get("/v1/models", headers=bearer(secret))).status_code == 200
        store.revoke("alice")
        async with asyncio.timeout(5):
            while await status() == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert await status() == 401
        store.close()


async def test_a_server_on_loopback_asks_for_no_key(tmp_path: Path) -> None:
    async with guarded(tmp_path) as site:
        assert (await site.world.http.post(CHAT, json=request())).status_code == 200
        # A client may send what it likes; nobody looks.
        answer = await site.world.http.post(CHAT, json=request(), headers=bearer("none"))
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("settings", "required"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "my-host"}, True),
        ({"keys": "on"}, True),
        ({"host": "0.0.0.0", "keys": "off"}, False),
    ],
)
def test_keys_are_asked_for_where_others_can_call(settings: Any, required: bool) -> None:
    assert Settings(**settings).keys_required is required


async def test_a_page_that_reaches_loopback_by_another_name_is_refused(tmp_path: Path) -> None:
    """DNS rebinding: the browser sends the name that the page was loaded from."""
    async with guarded(tmp_path) as site:
        http = site.world.http
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::1", "a b"):
            refused = await http.get("/v1/models", headers={"Host": host})
            assert "localhost only" in check_refusal(refused, 403, "permission_denied")
        for host in ("localhost:1234", "127.0.0.1", "[::1]:80"):
            assert (await http.get("/v1/models", headers={"Host": host})).status_code == 200


async def test_pages_of_other_origins_are_refused(tmp_path: Path) -> None:
    listed = "https://chat.example.org"
    async with guarded(tmp_path, cors_origins=(listed,)) as site:
        http, own = site.world.http, site.world.url
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1", f"{own}.evil.example"):
            refused = await http.post(CHAT, json=request(), headers={"Origin": origin})
            check_refusal(refused, 403, "permission_denied")
        for origin in (own, listed):
            passed = await http.post(CHAT, json=request(), headers={"Origin": origin})
            assert passed.status_code == 200
        assert len(site.world.meta.received) == 2


async def test_pages_that_may_call_do_so_with_their_libraries(tmp_path: Path) -> None:
    """What browsers ask before OpenAI's and Anthropic's libraries, and before a change."""
    listed = "https://chat.example.org"
    asked = (
        ("POST", "authorization,content-type,x-stainless-lang,x-stainless-os"),
        ("POST", "x-api-key,anthropic-version,anthropic-dangerous-direct-browser-access"),
        ("PATCH", "authorization,content-type,if-match"),
        ("DELETE", "authorization,if-match"),
    )
    async with guarded(tmp_path, cors_origins=(listed,)) as site:
        for method, headers in asked:
            allowed = await site.world.http.options(
                CHAT,
                headers={
                    "Origin": listed,
                    "Access-Control-Request-Method": method,
                    "Access-Control-Request-Headers": headers,
                },
            )
            assert allowed.status_code == 200, allowed.text


async def test_behind_a_proxy_any_name_will_do(tmp_path: Path) -> None:
    async with guarded(tmp_path, keys="off") as site:
        answer = await site.world.http.get("/v1/models", headers={"Host": "ai.example.org"})
        assert answer.status_code == 200


async def test_a_body_without_a_content_type_is_not_taken_for_json(tmp_path: Path) -> None:
    """A browser sends such a request to other origins without asking first."""
    async with guarded(tmp_path) as site:
        for headers in ({}, {"Content-Type": "text/plain"}):
            answer = await site.world.http.post(
                CHAT, content=b'{"messages": [{"role": "user", "content": "x"}]}', headers=headers
            )
            assert answer.status_code == 400
        assert not site.world.meta.received
