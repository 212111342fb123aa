"""Questions to a served system: when each answer's tokens came, and which model wrote them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import aiohttp

from tests.benchmarks.load import LoadError

_NUMBERS = count(int(time.time()))
"""In every calibration prompt another: no prompt is in a prefix cache."""


@dataclass(frozen=True)
class Answer:
    """One answer; seconds since `began`, on the clock of `time.perf_counter`. `meta_tokens` and
    `expert_tokens` are those of the trace; `gap` is from the end of the meta LLM's part to the
    beginning of the expert's."""

    began: float
    first: float
    latency: float
    prompt: int
    meta_tokens: int
    expert: str | None
    expert_tokens: int
    gap: float = 0.0

    @property
    def tokens(self) -> int:
        return self.meta_tokens + self.expert_tokens

    @property
    def step(self) -> float:
        """Seconds of one token after the first."""
        return (self.latency - self.first) / max(1, self.tokens - 1)


async def ask(
    session: aiohttp.ClientSession, model: str, question: str, tokens: int, exactly: bool = False
) -> Answer:
    """The answer of at most, or exactly, `tokens` tokens. Raises LoadError."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "trivium": {"trace": True},
    }
    if exactly:
        body["ignore_eos"] = True
    began = time.perf_counter()
    first, usage = 0.0, None
    segments: list[dict[str, Any]] = []
    async with session.post("v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise LoadError(f"{model}: {response.status} {await response.text()}")
        async for line in response.content:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise LoadError(str(event["error"]))
            if not first and any(c["delta"].get("content") for c in event["choices"]):
                first = time.perf_counter() - began
            usage = event.get("usage") or usage
            segments = (event.get("trivium") or {}).get("segments", segments)
    latency = time.perf_counter() - began
    if usage is None or not segments:
        raise LoadError(f"{model}: the answer came without usage and trace: is that Trivium?")
    return _answer(began, first or latency, latency, usage["prompt_tokens"], segments)


def _answer(
    began: float, first: float, latency: float, prompt: int, segments: Sequence[dict[str, Any]]
) -> Answer:
    """A part without text, such as a handoff at the first token, has written nothing."""
    meta = [s for s in segments if s["model"] == "meta"]
    others = [s for s in segments if s["model"] != "meta"]
    gap = (others[0]["start_ms"] - meta[-1]["end_ms"]) / 1000 if meta and others else 0.0
    return Answer(
        began,
        first,
        latency,
        prompt,
        sum(s["tokens"] for s in meta if s["end"] > s["start"]),
        others[0]["model"] if others else None,
        sum(s["tokens"] for s in others),
        max(0.0, gap),
    )


def prompt_of(words: int) -> str:
    """A prompt of about so many tokens that was never asked before."""
    return f"{next(_NUMBERS)}: tell me about " + " ".join("word" for _ in range(words))


async def fire(
    session: aiohttp.ClientSession, arrivals: Sequence[float], questions: Sequence[str], tokens: int
) -> list[Answer]:
    """Ask the whole system question after question at `arrivals` (s), however busy it is."""
    begin = time.perf_counter()

    async def one(at: float, question: str) -> Answer:
        await asyncio.sleep(begin + at - time.perf_counter())
        return await ask(session, "trivium", question, tokens)

    return list(
        await asyncio.gather(*(one(at, q) for at, q in zip(arrivals, questions, strict=True)))
    )
