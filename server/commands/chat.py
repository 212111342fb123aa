"""`trivium chat "…"`: one question, its answer as it streams, and who wrote what."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from rich.console import Console

from server.commands.client import CommandError, checked, with_session

ATTEMPTS, PAUSE_SECONDS = 5, 1.0
"""At one answer whose connection breaks."""
MOST_CHANCES = 2
"""Experts whose probabilities a trace shows."""

Message = dict[str, str]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Options:
    """How to ask. `max_tokens` None: as long as the model likes."""

    model: str = "trivium"
    system: str | None = None
    temperature: float = 0.0
    max_tokens: int | None = None
    trace: bool = False

    def body(self, messages: list[Message]) -> dict[str, Any]:
        """The chat completion request that asks for the answer to `messages`."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [*system, *messages],
            "temperature": self.temperature,
            "stream": True,
        }
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        if self.trace:
            body["trivium"] = {"trace": True}
        return body


@dataclass
class Reply:
    """An answer as far as it has come, and its trace if one was asked for."""

    text: str = ""
    segments: list[dict[str, Any]] = field(default_factory=list)
    pieces: int = 0
    """That have come; a piece counts as a token."""
    finished: bool = False


def chat(url: str, question: str, options: Options) -> None:
    """Ask `question` and print the answer; then the trace, if one is asked for."""
    reply = Reply()
    body = options.body([{"role": "user", "content": question}])
    with_session(lambda session: stream(session, body, reply, write), url)
    write("\n")
    print_trace(reply)


def chat_json(url: str, question: str, options: Options) -> None:
    """Ask `question` and print the answer's whole JSON, as the server gives it."""
    body = options.body([{"role": "user", "content": question}]) | {"stream": False}

    async def ask(session: aiohttp.ClientSession) -> Any:
        async with session.post("v1/chat/completions", json=body) as response:
            return await checked(response)

    print(json.dumps(with_session(ask, url), indent=2))


async def stream(
    session: aiohttp.ClientSession,
    body: dict[str, Any],
    reply: Reply,
    show: Callable[[str], None],
) -> None:
    """Send `body`, `show` the answer piece by piece, and gather it in `reply`, which holds what
    came even where this is cancelled. Raises CommandError.

    An answer whose connection breaks after its first words is asked for again, from there on:
    another orchestrator may be behind the address.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await _receive(session, continued(body, reply), reply, show)
        except (aiohttp.ClientError, ConnectionResetError):  # not that of the terminal
            if not reply.finished and (not reply.text or attempt == ATTEMPTS):
                raise
        if reply.finished:
            return
        await asyncio.sleep(PAUSE_SECONDS)
    raise CommandError("the answer was cut off; ask again")


def continued(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """The request for the rest of an answer that has come as far as `reply`."""
    if not reply.text:
        return body
    begun = {"role": "assistant", "content": reply.text}
    more = {"continue_final_message": True, "add_generation_prompt": False}
    if (most := body.get("max_tokens")) is not None:
        more["max_tokens"] = max(1, most - reply.pieces)
    return {**body, "messages": [*body["messages"], begun], **more}


async def _receive(
    session: aiohttp.ClientSession,
    body: dict[str, Any],
    reply: Reply,
    show: Callable[[str], None],
) -> None:
    start = len(reply.text)
    async with session.post("v1/chat/completions", json=body) as response:
        if response.status != 200:
            await checked(response)
        async for chunk in _chunks(response):
            if "error" in chunk:
                raise CommandError(chunk["error"]["message"])
            for choice in chunk.get("choices", []):
                piece = choice["delta"].get("content") or ""
                reply.text += piece
                reply.pieces += bool(piece)
                show(piece)
                reply.finished |= choice.get("finish_reason") is not None
            if trace := chunk.get("trivium"):
                reply.segments = [_moved(segment, start) for segment in trace["segments"]]


def _moved(segment: dict[str, Any], start: int) -> dict[str, Any]:
    """A part of an answer that begins at `start` of the whole."""
    return {**segment, "start": segment["start"] + start, "end": segment["end"] + start}


def write(text: str) -> None:
    """Print without a line's end, at once; on a terminal without what steers it, for models write
    what they like."""
    sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def harmless(text: str) -> str:
    """Without control characters but line ends and tabs."""
    return _CONTROL.sub("", text)


def print_trace(reply: Reply) -> None:
    """Who wrote what, a line for each part, as wide as the terminal; nothing without a trace."""
    rows = [_row(reply.text, segment) for segment in reply.segments]
    if not rows:
        return
    rows.insert(0, ("model", "tokens", "ms", "outcome", "P(expert)", "wrote"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    console = Console(highlight=False, markup=False, emoji=False)
    for number, row in enumerate(rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        line = "  ".join(cells).rstrip()
        console.print(
            line, style=None if number else "dim", no_wrap=True, overflow="ellipsis", crop=True
        )


def _row(text: str, segment: dict[str, Any]) -> tuple[str, ...]:
    outcome = segment["outcome"]
    if segment.get("error"):
        outcome += f": {harmless(segment['error'])}"
    wrote = harmless(text[segment["start"] : segment["end"]].strip())
    return (
        segment["model"],
        str(segment["tokens"]),
        f"{segment['start_ms']:.0f} to {segment['end_ms']:.0f}",
        outcome,
        ", ".join(f"{n} {p:.0%}" for n, p in _likeliest(segment.get("chances") or {})),
        wrote.replace("\n", " ⏎ ") or "—",
    )


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        if not (line.startswith(b"data:") and line.endswith(b"\n")):
            continue  # a comment, an event's end, or the line within which the connection broke
        data = line.removeprefix(b"data:").strip()
        if data and data != b"[DONE]":
            yield json.loads(data)


def _likeliest(chances: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(chances.items(), key=lambda chance: -chance[1])[:MOST_CHANCES]
