"""Log lines: no secrets, and the request that each belongs to."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from server.seeing.logs import (
    ACCESS_LOGGER,
    JsonFormatter,
    LineFormatter,
    LogFormat,
    log_to_stderr,
    request_id,
)
from tests.fakes import ExpertToken, refuses, says
from tests.server.conftest import ARITHMETIC, request, until
from tests.server.guarded import bearer, guarded, limited, make_key

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
        assert secret not in caplog.text
        for formatter in (LineFormatter(), JsonFormatter()):
            shown = "\n".join(formatter.format(record) for record in caplog.records)
            assert secret not in shown
            assert key.digest not in shown
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


@contextmanager
def written(name: str, formatter: logging.Formatter, level: int) -> Iterator[list[str]]:
    """The lines of a logger and those below it, as they are written."""
    lines: list[str] = []

    class Written(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, log = Written(), logging.getLogger(name)
    handler.setFormatter(formatter)
    before = log.level
    log.addHandler(handler)
    log.setLevel(level)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


async def test_log_lines_say_which_request_they_belong_to(tmp_path: Path) -> None:
    with written("server", LineFormatter(), logging.WARNING) as lines:
        async with guarded(tmp_path) as site:
            site.world.meta.behave = refuses(500, "boom")
            for stream in (False, True):
                ids = {"X-Request-Id": f"req-{stream}"}
                await site.world.http.post(CHAT, json=request(stream=stream, n=2), headers=ids)
    assert lines
    assert {line.rpartition(" ")[2] for line in lines} == {"[req-False]", "[req-True]"}
    assert request_id.get() is None


# ---------------------------------------------------------------- the access log


@contextmanager
def accesses(level: int = logging.INFO) -> Iterator[list[dict[str, Any]]]:
    """The access log's lines, taken apart; complete at the end."""
    found: list[dict[str, Any]] = []
    with written(ACCESS_LOGGER, JsonFormatter(), level) as lines:
        yield found
    found += [json.loads(line) for line in lines]


async def test_a_request_is_one_line_with_all_that_it_cost(tmp_path: Path) -> None:
    key, secret = make_key()
    with accesses() as lines:
        async with guarded(tmp_path, key) as site:
            site.world.meta.behave = says("The sum ", "is ", ExpertToken(ARITHMETIC), delay=0.01)
            headers = bearer(secret) | {
                "X-Request-Id": "req-1",
                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            }
            answer = await site.world.http.post(f"{CHAT}?a=b", json=request(), headers=headers)
            assert answer.headers["x-request-id"] == "req-1"
    (line,) = lines
    assert line["duration"] >= line["ttft"] >= 0.01
    message = line.pop("message")
    for name in ("time", "duration", "ttft"):
        del line[name]
    assert line == {
        "level": "info",
        "logger": "server.seeing.access",
        "request_id": "req-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "method": "POST",
        "path": CHAT,
        "status": 200,
        "key": "alice",
        "model": "trivium",
        "legs": "meta,arithmetic",
        "prompt_tokens": 20,
        "completion_tokens": 4,
    }
    assert message.startswith(f"POST {CHAT} 200 duration=0.")
    assert "legs=meta,arithmetic prompt_tokens=20 completion_tokens=4 ttft=0." in message


async def test_a_client_that_leaves_is_told_of(tmp_path: Path) -> None:
    with accesses() as lines:
        async with guarded(tmp_path) as site:
            http, site.world.meta.behave = site.world.http, says(*["word "] * 500, delay=0.01)
            for n in (1, 2):
                async with http.stream("POST", CHAT, json=request(stream=True, n=n)) as left:
                    await anext(left.aiter_lines())
            with pytest.raises(httpx.ReadTimeout):
                await http.post(CHAT, json=request(), timeout=0.2)
            await until(lambda: len([r for r in site.world.meta.received if r.aborted]) == 4)
    assert [(line["status"], line["client_left"]) for line in lines] == [(499, True)] * 3
    assert all(line["completion_tokens"] >= 1 for line in lines)


async def test_refused_and_broken_requests_have_their_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = make_key()
    with accesses() as lines:
        async with guarded(tmp_path, key) as site:
            await site.world.http.post(CHAT, json=request(), headers={"X-Request-Id": "a"})
        async with guarded(tmp_path) as site:
            monkeypatch.setattr(site.world.status, "health", lambda: 1 / 0)
            await site.world.http.get("/health", headers={"X-Request-Id": "b"})
    assert [(line["request_id"], line["status"]) for line in lines] == [("a", 401), ("b", 500)]


async def test_an_answer_that_breaks_off_says_so_in_its_line(tmp_path: Path) -> None:
    with accesses() as lines:
        async with guarded(tmp_path) as site:
            site.world.meta.behave = says("So", failure="cut", fail_after=1)
            await site.world.ask(stream=True)
    (line,) = lines
    assert (line["status"], line["error"]) == (200, "UpstreamFailed")


async def test_checks_and_scrapes_are_told_of_only_if_they_fail(tmp_path: Path) -> None:
    with accesses() as lines:
        async with guarded(tmp_path) as site:
            for path in ("/health", "/metrics", "/v1/models"):
                await site.world.http.get(path)
            site.world.snapshots.publish((), ())
            await site.world.http.get("/health")
    assert [(line["path"], line["status"]) for line in lines] == [
        ("/v1/models", 200),
        ("/health", 503),
    ]


async def test_a_client_cannot_write_lines_of_its_own(tmp_path: Path) -> None:
    evil = "x\nINFO server.seeing.access: POST /v1/experts 201 \x1b[31m"
    with written(ACCESS_LOGGER, LineFormatter(), logging.INFO) as lines:
        async with guarded(tmp_path) as site:
            await site.world.http.get("/v1/models/" + quote(evil))
            await site.world.ask(model=evil)
            surrogate = json.dumps(request(model="MODEL")).replace("MODEL", "\\ud800")
            headers = {"Content-Type": "application/json"}
            answer = await site.world.http.post(CHAT, content=surrogate, headers=headers)
            assert answer.status_code in (400, 404)
            await site.world.http.get("/" + "long" * 1000)
    assert len(lines) == 4
    assert all(line.isprintable() and len(line) < 500 for line in lines)


# ---------------------------------------------------------------- formats


def test_a_line_of_json() -> None:
    token = request_id.set("req-1")
    try:
        raise ValueError("bad key sk-trivium-secret")
    except ValueError as error:
        line = JsonFormatter().format(record("got %s\n", 1, exc_info=(ValueError, error, None)))
    finally:
        request_id.reset(token)
    told = json.loads(line)
    assert "\n" not in line
    assert "secret" not in line
    assert (told["level"], told["logger"], told["message"]) == ("error", "x", "got 1\n")
    assert told["request_id"] == "req-1"
    assert told["exception"].startswith("ValueError: bad key sk-trivium-…")
    assert datetime.fromisoformat(told["time"]).tzinfo is UTC
    assert "trace_id" not in told


@pytest.mark.parametrize(
    ("form", "terminal", "formatter"),
    [
        (None, True, LineFormatter),
        (None, False, JsonFormatter),
        ("text", False, LineFormatter),
        ("json", True, JsonFormatter),
    ],
)
def test_lines_are_text_on_a_terminal_and_json_elsewhere(
    form: LogFormat | None,
    terminal: bool,
    formatter: type[logging.Formatter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    root, access = logging.getLogger(), logging.getLogger(ACCESS_LOGGER)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(access, "level", access.level)
    monkeypatch.setattr("sys.stderr", Stream())
    log_to_stderr(form)
    (handler,) = root.handlers
    assert type(handler.formatter) is formatter
    assert access.isEnabledFor(logging.INFO)
    assert not logging.getLogger("server.x").isEnabledFor(logging.INFO)
