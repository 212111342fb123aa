"""One set of checks for every client: each asks the same and must get the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients.installed import node_modules, python_with_clients

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
SECONDS = 120

ADD = ["add", {"a": 40, "b": 2}]
EXPECTED: dict[str, Any] = {
    "models": ["trivium", "trivium/meta", "trivium/arithmetic", "trivium/astronomy"],
    "chat": "The sum is 42.",
    "stream": "The sum is 42.",
    "usage": 5,
    "tool": ADD,
    "tool result": "The tool says 42.",
    "structured": 42,
    "n": ["The sum is 42.", "The sum is 42."],
    "stop": "The ",
    "logprobs": ["The sum ", "is ", "42", ".", "<eos>"],
    "errors": [404, "model_not_found", 400, "temperature"],
    "response": "The sum is 42.",
    "response stream": "The sum is 42.",
    "response tool": ADD,
    "response structured": 42,
    "completion": "once upon",
}
"""What the fake workers of `server.py` make of the answers, however they are asked."""


def without(*names: str) -> dict[str, Any]:
    """The checks of a client that has no way to ask for some of them."""
    return {name: value for name, value in EXPECTED.items() if name not in names}


RESPONSES = ("response", "response stream", "response tool", "response structured")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The API with fake workers, in a process of its own."""
    command = [sys.executable, "-m", "tests.e2e.clients.server"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as server:
        assert server.stdout is not None
        line = server.stdout.readline().strip()
        assert line.startswith("http"), "the server did not start"
        yield line
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(30) == 0


def asked(*command: str | Path, **how: Any) -> dict[str, Any]:
    """What a client's program prints."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=env,
        check=False,
        **how,
    )
    assert ran.returncode == 0, ran.stderr
    got: dict[str, Any] = json.loads(ran.stdout)
    return got


def test_openai_python(url: str) -> None:
    assert asked(sys.executable, FOLDER / "openai_python.py", url) == EXPECTED


def test_openai_javascript(url: str, tmp_path: Path) -> None:
    # Node looks for modules beside the program.
    (tmp_path / "node_modules").symlink_to(node_modules() / "node_modules")
    shutil.copy(FOLDER / "openai_node.mjs", tmp_path)
    assert asked("node", "openai_node.mjs", url, cwd=tmp_path) == EXPECTED


def test_langchain(url: str) -> None:
    got = asked(python_with_clients(), FOLDER / "langchain_python.py", url)
    assert got == without("models")


def test_llamaindex(url: str) -> None:
    got = asked(python_with_clients(), FOLDER / "llamaindex_python.py", url)
    assert got == without("models", "usage", "n", "logprobs", *RESPONSES)


def test_anthropic_python(url: str) -> None:
    errors = [404, "not_found_error", 400, "invalid_request_error"]
    expected = without("models", "structured", "n", "logprobs", "completion", *RESPONSES)
    got = asked(sys.executable, FOLDER / "anthropic_python.py", url)
    assert got == expected | {"errors": errors}
