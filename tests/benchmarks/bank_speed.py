"""A bank against one process for each expert, and a bank's step by the experts in its batch."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

from tests.benchmarks import report
from tests.benchmarks.bank_servers import Side, open_bank, open_singles
from tests.benchmarks.bank_settings import SETS, Bench
from tests.benchmarks.load import spread_over


async def compare(bench: Bench) -> list[dict[str, Any]]:
    """Speed, start-up and memory of one process for each expert, and of a bank for each set.

    The processes share nothing, so one set is enough for them.
    """
    count = bench.settings.experts
    report.progress(f"compare: starting {count} processes, one for each expert")
    experts = bench.experts("own", count)
    async with open_singles(bench, experts, bench.logs("singles")) as side:
        rows = [{"side": "processes", "set": "own", **await _measure(bench, side)}]
    for kind in SETS:
        report.progress(f"compare: starting a bank of {count} experts, {SETS[kind]}")
        experts, logs = bench.experts(kind, count), bench.logs(f"compare-{kind}")
        async with open_bank(bench, experts, count, logs) as bank:
            rows.append({"side": "bank", "set": kind, **await _measure(bench, bank)})
    return rows


async def _measure(bench: Bench, side: Side) -> dict[str, Any]:
    settings = bench.settings
    await bench.load.round(spread_over(side.targets, settings.streams), settings.tokens // 4)
    speeds = []
    for streams in settings.loads:
        targets = spread_over(side.targets, streams)
        speed = await bench.load.speed(targets, settings.tokens, settings.rounds)
        report.progress(f"  {streams} streams: {speed.tokens_s:.1f} tokens/s")
        speeds.append({**asdict(speed), "spread": speed.spread})
    memory = asdict(side.memory())
    return {"start_seconds": side.start_seconds, "speed": speeds, "memory": memory}


async def curve(bench: Bench) -> list[dict[str, Any]]:
    """Seconds of one step of a bank with all streams, by the number of experts they ask for.

    Seen by the streams: the time between two tokens, which has all that the server does.
    """
    rows = []
    for kind in SETS:
        report.progress(f"curve: starting a bank, {SETS[kind]}")
        most = bench.settings.distinct[-1]
        experts, logs = bench.experts(kind, most), bench.logs(f"curve-{kind}")
        async with open_bank(bench, experts, most, logs) as bank:
            rows += [{"set": kind, **row} for row in await _steps(bench, bank)]
    return rows


async def _steps(bench: Bench, side: Side) -> list[dict[str, Any]]:
    """Rounds take turns, so that what disturbs the machine for a while disturbs all alike."""
    settings = bench.settings
    seconds: dict[int, list[float]] = {count: [] for count in settings.distinct}
    await bench.load.round(spread_over(side.targets, settings.streams), settings.tokens // 4)
    for _ in range(settings.rounds):
        for count, found in seconds.items():
            targets = spread_over(side.targets[:count], settings.streams)
            streams = await bench.load.round(targets, settings.tokens)
            found.append(statistics.median(stream.step for stream in streams))
    return [
        {"experts": count, "step_seconds": statistics.median(found), "rounds": found}
        for count, found in seconds.items()
    ]
