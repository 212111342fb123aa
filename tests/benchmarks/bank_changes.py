"""A bank whose experts come and go: swaps between host memory and places, and new experts."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from tests.benchmarks import report
from tests.benchmarks.bank_servers import Bank, open_bank
from tests.benchmarks.bank_settings import SETS, Bench
from tests.benchmarks.load import Stream, Target, percentile, spread_over, tokens_s

T = TypeVar("T")
ANSWER_TOKENS = 16
"""Of each request of the load with swaps."""
LOADS = 4
"""How often that load is put on a bank, one after the other, to see whether memory grows."""
SETTLE_SECONDS = 2.0
"""How long streams run before an expert is added, and on after it has answered."""


async def swaps(bench: Bench) -> list[dict[str, Any]]:
    """The same random load on a bank with few places, and on one with a place for each expert."""
    settings = bench.settings
    experts = bench.experts("shared", settings.registered)
    rows = []
    for places in (settings.resident, settings.registered):
        report.progress(f"swaps: starting a bank of {len(experts)} experts in {places} places")
        logs = bench.logs(f"swaps-{places}")
        async with open_bank(bench, experts, places, logs) as bank:
            rows.append({"places": places, **await _swap(bench, bank)})
    return rows


async def _swap(bench: Bench, bank: Bank) -> dict[str, Any]:
    """A lone stream asks each expert in turn, which with few places is a swap each; then the random
    load, several times."""
    settings, chance = bench.settings, random.Random(0)
    lone = [await bench.load.stream(target, 1) for _ in range(2) for target in bank.targets]
    asked = [chance.choice(bank.targets) for _ in range(settings.requests)]
    before, loads = await bank.status(), []
    memory = [asdict(bank.memory())]
    for _ in range(LOADS):
        streams = await answer_all(bench, asked)
        loads.append(tokens_s(streams))
        memory.append(asdict(bank.memory()))
    after = await bank.status()
    count = after["swaps"] - before["swaps"]
    seconds = after["swap_seconds"] - before["swap_seconds"]
    return {
        "tokens_s": statistics.median(loads),
        "loads": loads,
        "lone_first_seconds": statistics.median(s.first for s in lone[len(bank.targets) :]),
        "swaps": count,
        "swap_seconds": seconds / count if count else None,
        "memory": memory,
    }


async def answer_all(bench: Bench, asked: Sequence[Target]) -> list[Stream]:
    """A short answer of each of `asked`, in that order, as many at once as there are streams."""
    left = iter(asked)

    async def client() -> list[Stream]:
        return [await bench.load.stream(target, ANSWER_TOKENS) for target in left]

    answers = await asyncio.gather(*(client() for _ in range(bench.settings.streams)))
    return [stream for answer in answers for stream in answer]


async def adding(bench: Bench) -> list[dict[str, Any]]:
    """Add experts to a bank while streams run: seconds until each answers, and the streams'
    longest pause meanwhile."""
    settings, rows = bench.settings, []
    places = settings.experts + settings.additions
    for kind in SETS:
        report.progress(f"adding: starting a bank, {SETS[kind]}")
        experts, logs = bench.experts(kind, places), bench.logs(f"adding-{kind}")
        old, new = experts[: settings.experts], experts[settings.experts :]
        async with open_bank(bench, old, places, logs) as bank:
            targets = spread_over(bank.targets, settings.streams)
            await bench.load.round(targets, settings.tokens // 4)
            tokens = min(longest(bench), 2 * settings.tokens)
            undisturbed = pauses(await bench.load.round(targets, tokens))
            added = [await _add(bench, bank, targets, expert) for expert in new]
        quiet = {
            "median": statistics.median(undisturbed),
            "p99": percentile(undisturbed, 0.99),
            "longest": max(undisturbed),
        }
        rows.append({"set": kind, "undisturbed": quiet, "added": added})
    return rows


async def _add(bench: Bench, bank: Bank, targets: Sequence[Target], expert: Any) -> dict[str, Any]:
    """Seconds of adding `expert` while streams of `targets` run, and their longest pause (s). And
    that when the same request comes again: one expert more in a batch lengthens its steps too."""

    async def add() -> tuple[Target, float, float]:
        began = time.perf_counter()
        target = await bank.add(expert.name, expert)
        accepted = time.perf_counter()
        answer = await bench.load.stream(target, 1)
        return target, accepted - began, answer.end - began

    (target, accepted, answered), adding = await _beside(bench, targets, add)
    _, known = await _beside(bench, targets, lambda: bench.load.stream(target, 1))
    return {
        "accepted_seconds": accepted,
        "answer_seconds": answered,
        "longest": adding,
        "longest_known": known,
    }


async def _beside(
    bench: Bench, targets: Sequence[Target], act: Callable[[], Awaitable[T]]
) -> tuple[T, float]:
    """What `act` gives while streams of `targets` run, and their longest pause (s)."""
    done = asyncio.Event()
    tokens = longest(bench)
    running = [
        asyncio.create_task(bench.load.stream(target, tokens, done.is_set)) for target in targets
    ]
    try:
        await asyncio.sleep(SETTLE_SECONDS)
        result = await act()
        await asyncio.sleep(SETTLE_SECONDS)
    finally:
        done.set()
    return result, max(pauses(await asyncio.gather(*running)))


def longest(bench: Bench) -> int:
    """Tokens of the longest answer that a prompt leaves room for."""
    return bench.context - 16


def pauses(streams: Sequence[Stream]) -> list[float]:
    """Seconds between two tokens of each stream, from when all have begun until one has ended."""
    begun = max(stream.times[0] for stream in streams)
    end = min(stream.end for stream in streams)
    return [
        after - before
        for stream in streams
        for before, after in zip(stream.times, stream.times[1:], strict=False)
        if before >= begun and after <= end
    ]
