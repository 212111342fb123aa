"""Experts registered one after another, without queries of no expert: who is routed, who is
disturbed by a newcomer, and what a refit changes. No meta worker is needed.

python -m tests.benchmarks.routing_one_by_one TRAIN.jsonl [UNSEEN.jsonl] [--examples 25] [--seeds 4]

Without UNSEEN it is asked what is left of TRAIN, and TRAIN's queries of no expert, which nobody has
seen either.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.dataset import Query, limit_per_expert, read_queries
from router.encode import Messages
from router.head import Background, Floats, HeadRow
from router.joint import decisions
from router.learn import Other, learn_row, learn_together
from router.offline import OfflineEncoder
from router.prepare import prepare
from router.solver import Labels
from router.training import experts_of, labels_of
from router.vocabulary import DEFAULT_SLOTS
from server.settings import Settings


class Offline:
    """Encodes as `router.encode.Encoder`, with transformers in this process."""

    def __init__(self, encoder: OfflineEncoder) -> None:
        self._encoder = encoder
        self.hidden_size, self.fingerprint = encoder.size, encoder.fingerprint

    async def states(
        self, prompts: Sequence[Messages], progress: Callable[[int], None] = lambda done: None
    ) -> Floats:
        return self._encoder.encode(prompts)


@dataclass
class World:
    """The rows so far, and unseen queries: features, and whose they are (0: nobody's)."""

    features: Floats
    truth: Labels
    background: Background
    rows: list[HeadRow]

    def decided(self) -> Labels:
        scores = np.stack([row.scores("start", self.features) for row in self.rows], axis=1)
        return decisions(scores - self.background.log_odds(self.features)[:, None])

    def shares(self) -> dict[str, float]:
        own, decided = self.truth > 0, self.decided()
        return {
            "recall": float((decided == self.truth)[own].mean()),
            "false routes": float((decided > 0)[~own].mean()),
        }


async def measure(
    encoder: Any, train: Sequence[Query], unseen: Sequence[Query], examples: int, seed: int
) -> dict[str, float]:
    """The figures of one draw of examples, the experts in an order of their own."""
    names = experts_of(train)
    random.Random(seed).shuffle(names)
    drawn = [q for q in limit_per_expert(train, examples, seed) if q.expert is not None]
    asked = [query for query in unseen if all(query is not own for own in drawn)]
    features = await encoder.states([query.messages for query in asked])
    world = World(features, labels_of(asked, names), Background.none(encoder.hidden_size), [])
    others: list[Other] = []
    moved = []
    for number, name in enumerate(names):
        before = world.decided() if world.rows else np.zeros(len(asked), np.int64)
        own = [query.messages for query in drawn if query.expert == name]
        learned = await learn_row(encoder, name, own, others)
        others.append(Other(own, learned.row))
        world.rows.append(learned.row)
        right = (world.truth > 0) & (world.truth <= number) & (before == world.truth)
        if right.any():
            moved.append(float((world.decided()[right] != world.truth[right]).mean()))
    found = world.shares() | {"moved by a newcomer": float(np.mean(moved))}
    given = {name: other.examples for name, other in zip(names, others, strict=True)}
    rows = dict(zip(names, world.rows, strict=True))
    together = await learn_together(encoder, given, rows)
    world.rows = [together.experts[name].row for name in names]
    world.background = together.background
    return found | {f"{name} after a refit": share for name, share in world.shares().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("unseen", type=Path, nargs="?")
    parser.add_argument("--examples", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    cache = Settings().cache_dir
    checkpoint = prepare(cache / "models", None, DEFAULT_SLOTS)
    encoder = Offline(OfflineEncoder(checkpoint, cache / "encodings"))
    train = read_queries(args.train)
    unseen = train if args.unseen is None else read_queries(args.unseen)
    draws = [
        asyncio.run(measure(encoder, train, unseen, args.examples, seed))
        for seed in range(args.seeds)
    ]
    for name in draws[0]:
        shares = [draw[name] for draw in draws]
        print(f"{name:28} {100 * np.mean(shares):5.1f} ± {100 * np.std(shares):.1f} %")


if __name__ == "__main__":
    main()
