"""Log lines: no secrets, and the request that each belongs to."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from server.logs import LineFormatter, request_id
from tests.fakes import refuses
from tests.server.conftest import request
from tests.server.guarded import bearer, guarded, limited

CHAT = "/v1/chat/completions"


async def test_no_secret_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, secret = limited(requests=6)
    async with guarded(tmp_path, key) as site:
        with caplog.at_level(logging.DEBUG):
            for headers in (bearer(secret), {"x-api-key": secret}, bearer(secret + "x")):
                await site.world.http.post(CHAT, json=request(), headers=headers)
                await site.world.http.post(CHAT, content=b"{", headers=headers)
            site.world.meta.behave = refuses(500, "boom")
            for _ in range(3):
                await site.world.http.post(CHAT, json=request(), headers=bearer(secret))
            await site.world.http.get("/v1/experts", headers=bearer(secret))
        ours = [r for r in caplog.records if r.name.startswith("server")]
        assert ours, "nothing was logged, so nothing was tested"
        shown = "\n".join(LineFormatter().format(record) for record in caplog.records)
        assert secret not in caplog.text
        assert secret not in shown
        assert key.digest not in caplog.text
        assert secret not in site.audit.read_text()


def record(message: str, *args: Any, **more: Any) -> logging.LogRecord:
    return logging.LogRecord("x", logging.ERROR, "f", 1, message, args, more.get("exc_info"))


def test_whatever_looks_like_a_key_is_blotted_out() -> None:
    assert LineFormatter().format(record("got %s!", "sk-trivium-Ab_c-1")) == (
        "ERROR x: got sk-trivium-…!"
    )
    try:
        raise ValueError("bad key sk-trivium-secret")
    except ValueError as error:
        told = LineFormatter().format(record("x", exc_info=(ValueError, error, None)))
    assert "secret" not in told
    assert "ValueError" in told


async def test_a_sane_id_of_the_client_is_kept_and_any_other_replaced(tmp_path: Path) -> None:
    async with guarded(tmp_path) as site:
        for path in ("/v1/models", "/v1/nothing", "/health"):
            answer = await site.world.http.get(path, headers={"X-Request-Id": "abc-1.2:3_Z"})
            assert answer.headers["x-request-id"] == "abc-1.2:3_Z"
        for bad in ("a b", "x" * 129, "", "a;b", "ä".encode("latin-1")):
            answer = await site.world.http.get("/v1/models", headers={"X-Request-Id": bad})
            assert answer.headers["x-request-id"].startswith("req_")
        whole = await site.world.ask(stream=True)
        assert whole.headers["x-request-id"].startswith("req_")


async def test_log_lines_say_which_request_they_belong_to(tmp_path: Path) -> None:
    written: list[str] = []

    class Written(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler = Written()
    handler.setFormatter(LineFormatter())
    log = logging.getLogger("server")
    log.addHandler(handler)
    try:
        async with guarded(tmp_path) as site:
            site.world.meta.behave = refuses(500, "boom")
            for stream in (False, True):
                ids = {"X-Request-Id": f"req-{stream}"}
                await site.world.http.post(CHAT, json=request(stream=stream, n=2), headers=ids)
    finally:
        log.removeHandler(handler)
    assert written
    assert {line.rpartition(" ")[2] for line in written} == {"[req-False]", "[req-True]"}
    assert request_id.get() is None
