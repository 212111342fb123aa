"""`trivium chat` without a question: a conversation in the terminal.

Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer (its text stays part of the
conversation), Ctrl-D leaves.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import aiohttp
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from server.commands.chat import Message, Options, Reply, print_trace, stream, write
from server.commands.client import CommandError, checked, with_session
from server.commands.experts import expert_table

COMMANDS = {
    "/model": "NAME: who answers (trivium routes by itself); without NAME: which there are",
    "/experts": "the experts, and how they are",
    "/trace": "show, or no longer show, who wrote what",
    "/system": "TEXT: a system prompt; without TEXT: none",
    "/new": "begin a new conversation",
    "/help": "this list",
    "/quit": "leave (or Ctrl-D)",
}


class Repl:
    """One conversation. `handle` takes what a person typed."""

    def __init__(self, session: aiohttp.ClientSession, options: Options) -> None:
        self.options = options
        self.messages: list[Message] = []
        self.models: list[str] = []
        self._session = session

    async def handle(self, line: str) -> bool:
        """Carry out a command or ask a question; False if the person wants to leave.

        Raises CommandError; the conversation is then as it was before.
        """
        name, _, rest = line.strip().partition(" ")
        if name == "/quit":
            return False
        if name.startswith("/"):
            await self._command(name, rest.strip())
        elif line.strip():
            await self._ask(line.strip())
        return True

    async def load_models(self) -> None:
        """Ask the server which models there are. Raises CommandError."""
        async with self._session.get("v1/models") as response:
            self.models = [model["id"] for model in (await checked(response))["data"]]

    async def _command(self, name: str, rest: str) -> None:
        match name:
            case "/model":
                await self._choose(rest)
            case "/experts":
                async with self._session.get("v1/experts") as response:
                    expert_table((await checked(response))["data"])
            case "/trace":
                self.options = replace(self.options, trace=not self.options.trace)
                print("traces are shown" if self.options.trace else "traces are not shown")
            case "/system":
                self.options = replace(self.options, system=rest or None)
                print("system prompt set" if rest else "no system prompt")
            case "/new":
                self.messages = []
                print("a new conversation")
            case "/help":
                print("\n".join(f"{command:<10}{text}" for command, text in COMMANDS.items()))
                print("Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer")
            case _:
                raise CommandError(f"there is no command {name}; /help lists them")

    async def _choose(self, model: str) -> None:
        await self.load_models()
        if not model:
            for name in self.models:
                print(f"{'*' if name == self.options.model else ' '} {name}")
            return
        found = model if model in self.models else f"trivium/{model}"
        if found not in self.models:
            raise CommandError(f"there is no model {model!r}; /model lists them")
        self.options = replace(self.options, model=found)
        print(f"{found} answers")

    async def _ask(self, question: str) -> None:
        messages, reply = [*self.messages, _message("user", question)], Reply()
        body = self.options.body(messages)
        work = asyncio.ensure_future(stream(self._session, body, reply, write))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            if not work.cancelled():
                raise
            write(" … stopped")
        except CommandError:
            if reply.text:
                write("\n")
            raise
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        write("\n")
        print_trace(reply)
        if reply.text:
            self.messages = [*messages, _message("assistant", reply.text)]


class Completions(Completer):
    """Commands at the start of a line, models after `/model`."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if text.startswith("/model "):
            words, typed = self._repl.models, text.removeprefix("/model ")
        elif text.startswith("/") and " " not in text:
            words, typed = list(COMMANDS), text
        else:
            return
        for word in words:
            if word.startswith(typed):
                yield Completion(word, -len(typed), display_meta=COMMANDS.get(word, ""))


def converse(url: str, options: Options, history: Path) -> None:
    """Talk until the person leaves. `history` keeps what was typed. Raises CommandError."""
    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
        remembered: History = FileHistory(str(history))
    except OSError as error:
        print(f"what you type is not remembered: {error}")
        remembered = InMemoryHistory()

    async def work(session: aiohttp.ClientSession) -> None:
        repl = Repl(session, options)
        await repl.load_models()
        print(f"Talking to {options.model} at {url}. /help lists the commands.")
        prompt: PromptSession[str] = PromptSession(
            history=remembered,
            completer=Completions(repl),
            key_bindings=_keys(),
            multiline=True,
            prompt_continuation="  ",
        )
        await talk(repl, prompt)

    with_session(work, url)


async def talk(repl: Repl, prompt: PromptSession[str]) -> None:
    """Read and handle lines; an error is one line, and the talk goes on."""
    while True:
        try:
            line = await prompt.prompt_async("> ")
        except KeyboardInterrupt:
            continue  # Ctrl-C while typing clears the line
        except EOFError:
            return
        try:
            if not await repl.handle(line):
                return
        except CommandError as error:
            print(f"error: {error}")
        except (aiohttp.ClientError, OSError) as error:
            print(f"error: the connection broke: {error}")


def _keys() -> KeyBindings:
    """Enter sends; Alt-Enter (Esc, then Enter) begins a new line."""
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
