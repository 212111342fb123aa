"""Hand-overs inside answers, on the real meta worker: do two-part questions reach their expert,
single ones at once, and is general chat left alone?

python -m tests.benchmarks.handoffs TRAIN.jsonl UNSEEN.jsonl [--examples 25] [--refit] [--json OUT]

Registers the experts of TRAIN (their rows; no expert answers), one after another, each with a few
examples; with --refit all rows are then fitted together. The meta worker is the default one,
started for this, or the one at TRIVIUM_META_URL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.dataset import Query, limit_per_expert, read_queries
from router.encode import Encoder, Messages
from router.head import Background, HeadRow, build_head
from router.learn import Other, learn_row, learn_together
from router.meta_client import MetaClient, MetaInfo
from router.prepare import prepare
from router.training import experts_of
from server.relay.upstream import worker_session
from server.settings import Settings
from server.workers.engines import LocalEngines
from server.workers.worker import Worker

TOKENS = 160
"""Of a general answer, and of what may come before a hand-over."""
CONCURRENCY = 16
FIRSTS = (
    "In one sentence, what is a fox?",
    "Name a colour.",
    "Say hello in French.",
    "Give me a short tip for better sleep.",
    "What is the capital of Norway?",
    "Who painted the Mona Lisa?",
    "Tell me in one sentence why the sky is blue.",
    "What is a good name for a cat?",
    "Recommend a pizza topping.",
    "How do I say thank you in Spanish?",
    "Describe the sea in one sentence.",
    "Give me one reason to drink water.",
)
CHAT = (
    "Write a short story about a lighthouse keeper.",
    "How can I make new friends in a new city?",
    "Give me a recipe for lentil soup.",
    "What should I pack for a weekend in the mountains?",
    "Explain how a bicycle stays upright.",
    "Write a thank-you note to my teacher.",
    "What are the benefits of reading every day?",
    "Describe a perfect autumn afternoon.",
    "How do I start a small vegetable garden?",
    "Give me five ideas for a rainy Sunday.",
    "Write a Python function that reverses a string.",
    "What is the difference between tea and coffee?",
    "Suggest a plan for learning the guitar.",
    "How does the internet work?",
    "Write a poem about snow.",
    "What makes a good leader?",
    "Explain recursion to a child.",
    "How do I write a cover letter?",
    "Tell me about the history of chocolate.",
    "What is the best way to clean windows?",
    "Plan a birthday party for a six-year-old.",
    "How can I save money on groceries?",
    "Describe how bread is made.",
    "What are some good questions for a job interview?",
)


@dataclass(frozen=True)
class World:
    """A meta worker with a head."""

    client: MetaClient
    info: MetaInfo
    experts: list[str]

    async def asked(self, messages: Messages, tokens: int) -> tuple[str | None, int]:
        """Which expert is called within `tokens` tokens, and how many come before."""
        names = {self.info.vocabulary.token_id(i): name for i, name in enumerate(self.experts)}
        token, written = await self.client.handed_over(messages, [*names], tokens)
        return (None if token is None else names[token]), written


async def gather(asks: Sequence[Any]) -> list[Any]:
    limit = asyncio.Semaphore(CONCURRENCY)

    async def one(ask: Any) -> Any:
        async with limit:
            return await ask

    return await asyncio.gather(*(one(ask) for ask in asks))


async def learn(
    client: MetaClient, queries: Sequence[Query], cache: Path, refit: bool
) -> tuple[World, Any]:
    """Learn one expert after another, each beside those that are there."""
    info = await client.info()
    encoder = Encoder(client, info, cache)
    experts, rows, seconds = experts_of(queries), dict[int, HeadRow](), []
    background = Background.none(info.hidden_size)
    others: list[Other] = []
    for slot, name in enumerate(experts):
        own = [query.messages for query in queries if query.expert == name]
        began = time.perf_counter()
        learned = await learn_row(encoder, name, own, others)
        seconds.append(time.perf_counter() - began)
        print(f"{name}: {len(own)} examples, {seconds[-1]:.1f} s", flush=True)
        rows[slot] = learned.row
        others.append(Other(own, learned.row))
    if refit:
        began = time.perf_counter()
        examples = dict(zip(experts, (other.examples for other in others), strict=True))
        named = dict(zip(experts, rows.values(), strict=True))
        together = await learn_together(encoder, examples, named)
        seconds.append(time.perf_counter() - began)
        print(f"all together: {seconds[-1]:.1f} s", flush=True)
        rows = {slot: together.experts[name].row for slot, name in enumerate(experts)}
        background = together.background
    head = build_head(rows, info.vocabulary.slots, info.hidden_size, background)
    return World(client, await client.set_head(head), experts), seconds


async def measure(world: World, unseen: Sequence[Query]) -> dict[str, Any]:
    """The figures of the docstring."""
    rng = random.Random(0)
    own = [query for query in unseen if query.expert is not None]
    none = [query for query in unseen if query.expert is None]
    single = await gather([world.asked(query.messages, 1) for query in unseen])
    right = [found[0] == query.expert for found, query in zip(single, unseen, strict=True)]
    short = [query for query in own if len(query.text.split()) < 60]
    chosen = rng.sample(short, min(60, len(short)))
    parts = await gather([world.asked(_two_part(rng, query), TOKENS) for query in chosen])
    outcomes = Counter(
        _outcome(expert, written, query)
        for (expert, written), query in zip(parts, chosen, strict=True)
    )
    chat: list[Messages] = [[{"role": "user", "content": text}] for text in CHAT]
    near = [query.messages for query in rng.sample(none, min(36, len(none)))]
    return {
        "single": {
            "n": len(unseen),
            "accuracy": statistics.mean(right),
            "recall": statistics.mean(r for r, q in zip(right, unseen, strict=True) if q.expert),
            "false": statistics.mean(
                not r for r, q in zip(right, unseen, strict=True) if not q.expert
            ),
        },
        "two_part": {"n": len(chosen), **outcomes},
        "chat": await _false(world, chat),
        "near_misses": await _false(world, near),
    }


async def _false(world: World, asked: Sequence[Messages]) -> dict[str, float]:
    """Hand-overs of answers that the meta LLM should write alone."""
    answers = await gather([world.asked(messages, TOKENS) for messages in asked])
    later = sum(expert is not None and written > 0 for expert, written in answers)
    tokens = sum(written for _, written in answers)
    return {
        "answers": len(answers),
        "tokens": tokens,
        "at_start": sum(expert is not None and not written for expert, written in answers),
        "later": later,
        "later_per_1000": 1000 * later / max(1, tokens),
    }


def _two_part(rng: random.Random, query: Query) -> Messages:
    text = f"{rng.choice(FIRSTS)} Then {query.text[:1].lower()}{query.text[1:]}"
    return [{"role": "user", "content": text}]


def _outcome(expert: str | None, written: int, query: Query) -> str:
    if expert is None:
        return "never"
    if expert != query.expert:
        return "wrong expert"
    return "after the first part" if written else "at once"


class _Metas:
    """The meta workers that there are: one."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []

    def add(self, worker: Worker) -> None:
        self.workers.append(worker)

    async def remove(self, worker: Worker) -> None:
        self.workers.remove(worker)


async def run(args: argparse.Namespace) -> dict[str, Any]:
    settings = Settings()
    checkpoint = None
    if not settings.meta_bases:
        checkpoint = await asyncio.to_thread(prepare, settings.models_dir, None, settings.slots)
    async with worker_session() as session:
        metas = _Metas()
        LocalEngines(settings, session).metas(checkpoint, metas, lambda worker: None)
        worker = metas.workers[0]
        worker.start()
        try:
            (endpoint,) = await worker.ready()
            client = MetaClient(session, endpoint.base_url.removesuffix("/v1"), endpoint.model)
            queries = limit_per_expert(read_queries(args.train), args.examples, args.seed)
            cache = settings.cache_dir / "encodings"
            world, seconds = await learn(client, queries, cache, args.refit)
            found = await measure(world, read_queries(args.unseen))
            return {"examples": args.examples, "learn_seconds": seconds, **found}
        finally:
            await worker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("unseen", type=Path)
    parser.add_argument("--examples", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--refit", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = asyncio.run(run(args))
    text = json.dumps(result, indent=2)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
