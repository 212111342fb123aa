"""Questions of two parts, asked of a running `trivium serve` with its starter experts: does the
second part reach its expert, and when?

python -m tests.benchmarks.second_parts [--url http://127.0.0.1:8000] [--json OUT]

Of each expert 20 questions, a general one and one of its own: "In one sentence, what is a fox? Then
compute 4821 + 3977." The meta LLM should answer the first part and the expert the second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

CONCURRENCY = 8
TOKENS = 90
FIRSTS = (
    "In one sentence, what is a fox?",
    "In one sentence, what is a lighthouse?",
    "Say hello in French.",
    "Tell me what bread is made of.",
    "In one sentence, what does a judge do?",
    "What is the opposite of hot?",
    "Name a colour.",
    "In one sentence, what is a violin?",
    "Explain what rain is in one sentence.",
    "What sound does a cat make?",
)
SECONDS = {
    "arithmetic": ("Then compute 4821 + 3977.", "Then, what is 15% of 260?"),
    "chemistry": (
        "Then tell me the molar mass of aluminum sulfate.",
        "Then, what is the symbol of iron?",
    ),
    "dates": (
        "Then tell me what day of the week 4 July 1976 was.",
        "Then, how many days are there from 3 May 2019 to 20 November 2024?",
    ),
    "geography": (
        "Then tell me which country uses the forint.",
        "Then, what is the capital of Peru?",
    ),
}
AFTER, WHOLE, OTHER, NONE = "after the first part", "at once", "another expert", "none"


async def asked(session: aiohttp.ClientSession, url: str, text: str) -> list[str]:
    """Who wrote the answer, in turn."""
    body = {
        "model": "trivium",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "trivium": {"trace": True},
    }
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        segments = (await response.json())["trivium"]["segments"]
    return [segment["model"] for segment in segments if segment["end"] > segment["start"]]


def outcome(writers: list[str], expert: str) -> str:
    """What became of a question whose second part is the expert's."""
    if writers[:1] == [expert]:
        return WHOLE
    if writers[:1] == ["meta"] and expert in writers:
        return AFTER
    return NONE if writers == ["meta"] else OTHER


async def measure(url: str) -> dict[str, dict[str, int]]:
    """How often which outcome, by expert."""
    limit = asyncio.Semaphore(CONCURRENCY)

    async def one(session: aiohttp.ClientSession, expert: str, text: str) -> str:
        async with limit:
            return outcome(await asked(session, url, text), expert)

    found: dict[str, dict[str, int]] = {}
    async with aiohttp.ClientSession() as session:
        for expert, seconds in SECONDS.items():
            texts = [f"{first} {second}" for second in seconds for first in FIRSTS]
            outcomes = await asyncio.gather(*(one(session, expert, text) for text in texts))
            counts = Counter(outcomes)
            found[expert] = {name: counts[name] for name in (AFTER, WHOLE, OTHER, NONE)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: Any = asyncio.run(measure(args.url))
    text = json.dumps(found, indent=2)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
