"""Headers: those of clients stay here, and pages may call only if they are listed."""

from __future__ import annotations

from pathlib import Path

from tests.server.conftest import request
from tests.server.guarded import bearer, guarded, make_key

CHAT = "/v1/chat/completions"


async def test_nothing_of_a_clients_headers_reaches_a_worker(tmp_path: Path) -> None:
    key, secret = make_key()
    async with guarded(tmp_path, key) as site:
        headers = bearer(secret) | {
            "Cookie": "session=c00kie",
            "X-Forwarded-For": "1.2.3.4",
            "X-Custom": "cust0m",
            "User-Agent": "ag3nt",
            "X-Request-Id": "r3quest",
        }
        answer = await site.world.http.post(CHAT, json=request(), headers=headers)
        assert answer.status_code == 200
        seen = str(site.world.meta.received[0].headers)
        for value in (secret, *headers.values()):
            assert value not in seen


async def test_no_page_may_call_unless_it_is_listed(tmp_path: Path) -> None:
    ask = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    key, _ = make_key()
    async with guarded(tmp_path, key) as site:
        answer = await site.world.http.options(CHAT, headers=ask)
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_listed_pages_may_call_and_no_others(tmp_path: Path) -> None:
    key, secret = make_key()
    async with guarded(tmp_path, key, cors_origins=("https://a.example",)) as site:
        http = site.world.http
        ask = {
            "Origin": "https://a.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        answer = await http.options(CHAT, headers=ask)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert "access-control-allow-credentials" not in answer.headers
        other = await http.options(CHAT, headers=ask | {"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers
        page = {"Origin": "https://a.example"}
        answer = await http.post(CHAT, json=request(), headers=bearer(secret) | page)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        refused = await http.post(CHAT, json=request(), headers=page)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://a.example"
