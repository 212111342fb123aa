"""The gate of a running meta worker against the offline evaluation of the same head.

python -m tests.benchmarks.routing_agreement URL HEAD.safetensors QUERIES.jsonl

URL is the base URL, without /v1, of a meta worker that no orchestrator uses (it would put its own
head back): `trivium worker meta -- --host 127.0.0.1 --port 8111`. Prints how many decisions agree.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import numpy as np
from safetensors.numpy import load_file, save

from router.dataset import Query, read_queries
from router.head import Head
from router.head_file import read_head
from router.joint import decisions
from router.meta_client import MetaClient
from router.offline import OfflineEncoder
from router.prepare import prepare
from router.training import labels_of
from router.vocabulary import DEFAULT_SLOTS
from server.settings import Settings

CONCURRENCY = 16


async def gate(url: str, head: Path, queries: list[Query], experts: int) -> list[int]:
    """The gate's decisions: 0 for "no expert", else 1 + the expert's number."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        client = MetaClient(session, url, "meta")
        info = await client.set_head(Head(save(load_file(head)), "agreement"))
        tokens = {info.vocabulary.token_id(slot): 1 + slot for slot in range(experts)}
        limit = asyncio.Semaphore(CONCURRENCY)

        async def decide(query: Query) -> int:
            async with limit:
                token = await client.routed_to(query.messages, [*tokens])
            return tokens.get(token or -1, 0)

        return list(await asyncio.gather(*map(decide, queries)))


def main(url: str, head: Path, path: Path) -> None:
    cache = Settings().cache_dir
    encoder = OfflineEncoder(prepare(cache / "models", None, DEFAULT_SLOTS), cache / "encodings")
    fit, facts = read_head(head)
    queries = read_queries(path)
    offline = decisions(fit.scores(encoder.encode([query.messages for query in queries])))
    found = np.array(asyncio.run(gate(url, head, queries, len(facts.experts))))
    truth = labels_of(queries, facts.experts)
    print(f"{(found == offline).sum()} of {len(queries)} decisions agree")
    print(f"right: offline {(offline == truth).mean():.1%}, the gate {(found == truth).mean():.1%}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
