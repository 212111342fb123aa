"""`trivium chat`: one question, its answer as it streams, and who wrote what."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from server.commands.client import CommandError, checked, with_session

MOST_CHANCES = 3
"""Experts whose probabilities a trace shows."""


def request_body(
    question: str,
    model: str,
    system: str | None,
    temperature: float,
    max_tokens: int | None,
    trace: bool,
) -> dict[str, Any]:
    """The chat completion request for the command's options."""
    messages = [{"role": "system", "content": system}] if system else []
    body: dict[str, Any] = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": question}],
        "temperature": temperature,
        "stream": True,
    }
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if trace:
        body["trivium"] = {"trace": True}
    return body


def chat(url: str, body: dict[str, Any]) -> None:
    """Send `body` and print the answer; then the trace, if one was asked for."""

    async def work(session: aiohttp.ClientSession) -> tuple[str, dict[str, Any] | None]:
        text, trace = "", None
        async with session.post("v1/chat/completions", json=body) as response:
            if response.status != 200:
                await checked(response)
            async for chunk in _chunks(response):
                if "error" in chunk:
                    raise CommandError(chunk["error"]["message"])
                for choice in chunk.get("choices", []):
                    piece = choice["delta"].get("content") or ""
                    text += piece
                    sys.stdout.write(piece)
                    sys.stdout.flush()
                trace = chunk.get("trivium", trace)
        sys.stdout.write("\n")
        return text, trace

    text, trace = with_session(work, url)
    if trace:
        _print_trace(text, trace)


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        data = line.strip().removeprefix(b"data:").strip()
        if data and data != b"[DONE]":
            yield json.loads(data)


def _likeliest(chances: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(chances.items(), key=lambda chance: -chance[1])[:MOST_CHANCES]


def _print_trace(text: str, trace: dict[str, Any]) -> None:
    columns = ("model", "wrote", "tokens", "from (ms)", "to (ms)", "outcome", "P(expert)")
    table = Table(*columns, box=None)
    for segment in trace["segments"]:
        wrote = text[segment["start"] : segment["end"]].strip()
        outcome = segment["outcome"]
        if segment.get("error"):
            outcome += f": {segment['error']}"
        table.add_row(
            segment["model"],
            wrote.replace("\n", " ⏎ ") or "—",
            str(segment["tokens"]),
            f"{segment['start_ms']:.0f}",
            f"{segment['end_ms']:.0f}",
            outcome,
            ", ".join(f"{n} {p:.0%}" for n, p in _likeliest(segment.get("chances") or {})),
        )
    Console(stderr=False, highlight=False).print(table, markup=False)
