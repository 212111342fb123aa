"""A load of streams on OpenAI-compatible servers: when each token came. One process, asyncio.

Prompts are a few random token ids, so that no prompt is in a prefix cache and prefill is small.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

PROMPT_TOKENS = 8
SPECIAL_TOKENS = 3
"""Ids below are not used in prompts."""


class LoadError(RuntimeError):
    """A server refused a stream, or broke it off."""


@dataclass(frozen=True)
class Target:
    """A model at a server; `url` has no path."""

    url: str
    model: str


@dataclass(frozen=True)
class Stream:
    """One answer. `began` is when it was asked for; `times` are when chunks came, `counts` the
    tokens that had then come in all. Seconds of `time.perf_counter`."""

    target: Target
    began: float
    times: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.counts[-1]

    @property
    def end(self) -> float:
        return self.times[-1]

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.times[0] - self.began

    @property
    def step(self) -> float:
        """Seconds of one token, on average after the first chunk; needs two chunks."""
        return (self.times[-1] - self.times[0]) / (self.counts[-1] - self.counts[0])

    @property
    def gaps(self) -> list[float]:
        """Pauses between chunks (s): where a server sends each token at once, between tokens."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


@dataclass(frozen=True)
class Speed:
    """Several rounds of the same load: tokens/s in all, each round's, and their median."""

    streams: int
    tokens_s: float
    rounds: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Half the range of the rounds, as a share of the median."""
        return (max(self.rounds) - min(self.rounds)) / 2 / self.tokens_s


class Load:
    """Asks servers for streams. Prompts come from `seed` and never repeat in practice."""

    def __init__(self, session: aiohttp.ClientSession, vocabulary: int, seed: int = 0) -> None:
        self._session = session
        self._vocabulary = vocabulary
        self._random = random.Random(seed)

    def prompt(self) -> list[int]:
        choices = range(SPECIAL_TOKENS, self._vocabulary)
        return [self._random.choice(choices) for _ in range(PROMPT_TOKENS)]

    async def stream(
        self, target: Target, tokens: int, stop: Callable[[], bool] = lambda: False
    ) -> Stream:
        """One answer of `tokens` tokens at temperature 0, broken off early when `stop()`.
        Raises LoadError."""
        body = {
            "model": target.model,
            "prompt": self.prompt(),
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        began = time.perf_counter()
        times: list[float] = []
        counts: list[int] = []
        async with self._session.post(f"{target.url}/v1/completions", json=body) as response:
            if response.status != 200:
                raise LoadError(f"{target}: {response.status} {await response.text()}")
            async for count in _token_counts(response.content):
                if count > (counts[-1] if counts else 0):
                    times.append(time.perf_counter())
                    counts.append(count)
                if stop():
                    break
        if not counts or (counts[-1] != tokens and not stop()):
            raise LoadError(f"{target}: {counts[-1:]} tokens came instead of {tokens}")
        return Stream(target, began, tuple(times), tuple(counts))

    async def round(self, targets: Sequence[Target], tokens: int) -> list[Stream]:
        """One stream for each of `targets`, all at once."""
        return list(await asyncio.gather(*(self.stream(target, tokens) for target in targets)))

    async def speed(self, targets: Sequence[Target], tokens: int, rounds: int) -> Speed:
        """Tokens/s of several rounds, each from the first request to the last token."""
        speeds = tuple([tokens_s(await self.round(targets, tokens)) for _ in range(rounds)])
        return Speed(len(targets), statistics.median(speeds), speeds)


def spread_over(targets: Sequence[Target], streams: int) -> list[Target]:
    """A target for each of `streams`, as evenly as it goes."""
    return [targets[i % len(targets)] for i in range(streams)]


def tokens_s(streams: Sequence[Stream]) -> float:
    """Tokens/s in all, from the first request to the last token."""
    seconds = max(stream.end for stream in streams) - min(stream.began for stream in streams)
    return sum(stream.tokens for stream in streams) / seconds


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def _token_counts(content: Any) -> AsyncIterator[int]:
    """Tokens in all so far, for each event of a completion's stream. Raises LoadError."""
    async for line in content:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise LoadError(str(event["error"]))
        if event.get("usage"):
            yield event["usage"]["completion_tokens"]
