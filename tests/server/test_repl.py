"""`trivium chat` as a conversation: keys typed at a real prompt, answers from the real API."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from server.commands.chat import Options
from server.commands.repl import Completions, Repl, _keys, talk
from tests.fakes import says
from tests.server.conftest import World

ENTER, ALT_ENTER, CTRL_C, CTRL_D = "\r", "\x1b\r", "\x03", "\x04"


@asynccontextmanager
async def repl_at(world: World) -> AsyncIterator[Repl]:
    async with aiohttp.ClientSession(world.url.rstrip("/") + "/") as session:
        yield Repl(session, Options())


@pytest.fixture
async def repl(world: World) -> AsyncIterator[Repl]:
    async with repl_at(world) as repl:
        yield repl


async def typed(repl: Repl, *keys: str) -> None:
    """What happens when a person types `keys`."""
    with create_pipe_input() as pipe:
        prompt: PromptSession[str] = PromptSession(
            input=pipe, output=DummyOutput(), key_bindings=_keys(), multiline=True
        )
        feed(pipe, *keys)
        await asyncio.wait_for(talk(repl, prompt), 10)


def feed(pipe: PipeInput, *keys: str) -> None:
    for key in keys:
        pipe.send_text(key)


async def test_the_conversation_goes_along(
    repl: Repl, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.meta.behave = says("Foxes", " are small.")
    await typed(repl, "What is a fox?", ENTER, "And", ALT_ENTER, "a hare?", ENTER, "/quit", ENTER)
    assert capsys.readouterr().out == "Foxes are small.\n" * 2
    asked = [m["content"] for m in world.meta.bodies[-1]["messages"]]
    assert asked == ["What is a fox?", "Foxes are small.", "And\na hare?"]


async def test_commands_change_how_it_asks(
    repl: Repl, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("/model arithmetic", "/system Be brief.", "/trace", "6 × 7?", "/new", "/model")
    await typed(repl, *(key for line in lines for key in (line, ENTER)), CTRL_D)
    printed = capsys.readouterr().out
    assert "trivium/arithmetic answers" in printed
    assert "42\n" in printed
    assert "finished" in printed
    assert "* trivium/arithmetic" in printed
    (body,) = world.arithmetic.bodies
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert repl.messages == []


async def test_mistakes_are_one_line_and_the_talk_goes_on(
    repl: Repl, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await typed(repl, "/model nobody", ENTER, "/nonsense", ENTER, CTRL_C, "Hi", ENTER, CTRL_D)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("error: there is no model 'nobody'")
    assert printed[1].startswith("error: there is no command /nonsense")
    assert printed[2] == "Hello"


async def test_ctrl_c_stops_the_answer_and_not_the_program(
    repl: Repl, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.meta.behave = says("one ", "two ", *["more "] * 400, delay=0.05)
    asking = asyncio.create_task(repl.handle("Count."))
    printed = ""
    while "two" not in printed:
        await asyncio.sleep(0.02)
        printed += capsys.readouterr().out
    os.kill(os.getpid(), signal.SIGINT)
    assert await asyncio.wait_for(asking, 5)
    assert "stopped" in capsys.readouterr().out
    assert repl.messages[1]["content"].startswith("one two ")


async def test_completion_knows_commands_and_models(repl: Repl) -> None:
    await repl.load_models()
    words = Completions(repl)

    def offered(text: str) -> list[str]:
        return [c.text for c in words.get_completions(Document(text), CompleteEvent())]

    assert offered("/m") == ["/model"]
    assert offered("/model trivium/ar") == ["trivium/arithmetic"]
    assert offered("what is") == []
