"""Experts come and go, and the server with them, while people are served."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from experts.starter import arithmetic_folder
from tests.e2e.conftest import Server
from tests.e2e.test_answers import (
    OPPOSITE,
    PINNED,
    SUM,
    ask,
    final_number,
    streamed,
    text_of,
    writers,
)

pytestmark = pytest.mark.e2e

STORY = "Tell me a story about a lighthouse."
KINGS = [
    f"{verb} the {what} of King {king}{end}"
    for verb in ("Who was", "Tell me about", "Describe")
    for what, end in (("crown", "?"), ("castle", "."))
    for king in ("Arthur", "Harald", "Louis", "Edward")
]


def second_expert(folder: Path) -> Path:
    """A manifest of another expert: the shipped weights in the same bank, under another name."""
    shutil.copytree(arithmetic_folder() / "checkpoint", folder / "checkpoint")
    manifest = {
        "name": "kings",
        "description": "Questions about kings.",
        "worker": {"checkpoint": "checkpoint"},
        "examples": KINGS,
    }
    (folder / "expert.yaml").write_text(yaml.safe_dump(manifest))
    return folder


class Streams:
    """Asks for the same story again and again until told to stop, and keeps the answers."""

    def __init__(self, server: Server) -> None:
        self.client, self.texts = server.client, list[str]()
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.texts.append(streamed(self.client, STORY, max_tokens=40))
            except Exception as error:
                self.errors.append(error)

    def __enter__(self) -> Streams:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def test_an_expert_is_registered_and_removed_while_streams_run(
    server: Server, tmp_path: Path
) -> None:
    undisturbed = streamed(server.client, STORY, max_tokens=40)
    with Streams(server) as streams:
        added = server.trivium("experts", "add", str(second_expert(tmp_path)))
        assert added.returncode == 0, added.stderr
        assert "kings is live as trivium/kings" in added.stdout
        views = httpx.get(f"{server.url}/v1/experts").json()["data"]
        banks = {view["name"]: view["bank"] for view in views}
        assert banks["kings"] == banks["arithmetic"] is not None
        routed = ask(server.client, "Describe the castle of King Harald.", extra_body=trace())
        assert writers(routed) == ["kings"]
        assert writers(ask(server.client, SUM, extra_body=trace())) == ["arithmetic"]
        assert writers(ask(server.client, OPPOSITE, extra_body=trace())) == ["meta"]
        removed = server.trivium("experts", "remove", "kings")
        assert removed.returncode == 0, removed.stderr
    assert not streams.errors
    assert streams.texts
    assert set(streams.texts) == {undisturbed}
    assert [m.id for m in server.client.models.list()] == ["trivium", "trivium/meta", *PINNED]
    assert "kings" not in server.trivium("experts", "list").stdout


def test_the_terminal_prints_the_answer_and_who_wrote_it(server: Server) -> None:
    routed = server.trivium("chat", SUM, "--trace")
    assert "8798" in routed.stdout
    assert "arithmetic" in routed.stdout
    plain = server.trivium("chat", OPPOSITE)
    assert "cold" in plain.stdout
    shown = server.trivium("experts", "show", "arithmetic")
    assert "live" in shown.stdout
    missing = server.trivium("experts", "show", "nobody")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: no expert named 'nobody'")


def test_a_taken_port_is_one_clear_sentence(server: Server) -> None:
    second = server.trivium("serve", "--port", str(server.port))
    assert second.returncode == 1
    assert second.stderr.strip().startswith(f"error: cannot listen on 127.0.0.1 port {server.port}")
    assert "Traceback" not in second.stderr


def test_a_client_that_goes_away_frees_the_worker(server: Server) -> None:
    stream: Any = ask(server.client, STORY, stream=True, max_tokens=2000)
    next(iter(stream))
    stream.close()
    began = time.monotonic()
    ask(server.client, OPPOSITE)
    assert time.monotonic() - began < 30, "the abandoned stream still runs"


def test_a_restart_keeps_the_registry(server: Server) -> None:
    story = streamed(server.client, STORY, max_tokens=60)
    with ThreadPoolExecutor() as threads:
        running = threads.submit(streamed, server.client, STORY, max_tokens=60)
        time.sleep(0.3)
        assert server.stop() == 0
        assert running.result() == story, "an answer that was running did not finish"
    server.start()
    assert "encoding" not in server.log.rsplit("starting the meta worker", 1)[1]
    answer = ask(server.client, SUM, extra_body=trace())
    assert writers(answer) == ["arithmetic"]
    assert final_number(text_of(answer)) == "8798"


def trace() -> dict[str, Any]:
    return {"trivium": {"trace": True}}
