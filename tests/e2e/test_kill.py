"""`kill -9` of real vLLM workers in the middle of a sentence: the client gets a whole answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import Server
from tests.e2e.test_answers import SUM, ask, final_number, text_of, writers
from tests.e2e.test_life import STORY, trace

pytestmark = pytest.mark.e2e


@dataclass
class Survived:
    """An answer whose worker was killed when `before` had been written."""

    before: str
    text: str
    finishes: list[str]
    segments: list[tuple[str, str]]
    """Models and what became of each."""


def worker(server: Server, name: str) -> psutil.Process:
    """The process that serves `name`, or a bank if that is how the model's name begins."""
    for process in server.descendants():
        command = process.cmdline()
        if "--served-model-name" in command:
            served = command[command.index("--served-model-name") + 1]
            if served.partition(":")[0] == name:
                return process
    return pytest.fail(f"no worker serves {name}")


def killed(server: Server, name: str, question: str, after: int, max_tokens: int) -> Survived:
    """Ask, and kill a worker once `after` pieces of text have come. An error event raises."""
    process, before, text, pieces = worker(server, name), "", "", 0
    finishes, segments = list[str](), list[tuple[str, str]]()
    stream: Any = ask(
        server.client, question, stream=True, max_tokens=max_tokens, extra_body=trace()
    )
    for chunk in stream:
        told = (chunk.model_extra or {}).get("trivium") or {"segments": []}
        segments += [(s["model"], s["outcome"]) for s in told["segments"]]
        for choice in chunk.choices:
            finishes += [choice.finish_reason] if choice.finish_reason else []
            text += choice.delta.content or ""
            pieces += bool(choice.delta.content)
        if pieces == after and not before:
            before = text
            process.kill()
    return Survived(before, text, finishes, segments)


def test_the_experts_worker_is_killed(server: Server) -> None:
    """Nothing else can do sums, so the meta LLM goes on as well as it can."""
    whole = text_of(ask(server.client, SUM))
    answer = killed(server, "bank", SUM, after=12, max_tokens=120)
    assert answer.before
    assert whole.startswith(answer.before)
    assert answer.text.startswith(answer.before)
    assert len(answer.text) > len(answer.before)
    assert answer.finishes in (["stop"], ["length"])
    assert answer.segments[0] == ("meta", "handoff")
    assert ("arithmetic", "failed") in answer.segments
    assert answer.segments[-1] == ("meta", "finished")
    server.wait_live("arithmetic")
    again = ask(server.client, SUM, extra_body=trace())
    assert writers(again) == ["arithmetic"]
    assert final_number(text_of(again)) == "8798"


def test_the_only_meta_worker_is_killed(server: Server) -> None:
    """The answer waits until the worker has been started again, and goes on from its sentence."""
    answer = killed(server, "meta", STORY, after=20, max_tokens=60)
    assert answer.text.startswith(answer.before)
    assert len(answer.text) > len(answer.before)
    assert answer.finishes == ["length"], answer
    assert answer.segments[0] == ("meta", "failed")
    assert answer.segments[-1] == ("meta", "finished")
    assert writers(ask(server.client, SUM, extra_body=trace())) == ["arithmetic"]
