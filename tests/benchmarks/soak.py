"""Hours of mixed load on one orchestrator: does its memory stay, do its descriptors?

    python -m tests.benchmarks.soak --minutes 60

Streams with and without a handoff, fast and slow, and clients that leave in mid-answer, against the
stub worker of `trivium bench relay`. Every whole stream is checked. The end is compared with the
minute when the load had warmed up; more than 5 % of memory, or any error, is a failure.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop

from server.workers.worker import free_port
from tests.benchmarks import report
from tests.benchmarks.relay_load import Client, address_of, fault, request
from tests.benchmarks.relay_servers import Cores, orchestrator, stub

MIX = (
    *("alone", "handoff-middle", "handoff-start", "alone single-writes"),
    *("handoff-middle single-writes", "handoff-start steady"),
)
"""What one client after the other asks for, in turns."""
LEAVE_EVERY = 7
"""One stream in so many is left after its first bytes."""
MOST_GROWTH = 1.05
SAMPLE_SECONDS = 1.0
PAUSE_SECONDS = 0.02
"""Of a client between two streams: the orchestrator is busy, but not flat out."""
MIB = 1 << 20


@dataclass
class Soak:
    """What was seen: memory and descriptors every SAMPLE_SECONDS."""

    streams: int = 0
    left: int = 0
    errors: list[str] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def growth(self, warm: int) -> float:
        """Memory at the end over that after `warm` samples; medians of a tenth of what follows."""
        after = self.rss[warm:]
        few = max(1, len(after) // 10)
        return statistics.median(after[-few:]) / statistics.median(after[:few])

    def more_descriptors(self, warm: int) -> int:
        """The most at the end, over the most at the beginning."""
        after = self.descriptors[warm:]
        few = max(1, len(after) // 10)
        return max(after[-few:]) - max(after[:few])


async def soak(url: str, process: psutil.Process, seconds: float, clients: int) -> Soak:
    """Put the mix on the server at `url` for `seconds`."""
    seen, end = Soak(), time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(_watch(seen, process, end))
        for number in range(clients):
            group.create_task(_client(seen, url, number, end))
    return seen


async def _client(seen: Soak, url: str, number: int, end: float) -> None:
    loop, address = asyncio.get_running_loop(), address_of(url)
    client: Client | None = None
    for turn in itertools.count(number):
        if time.monotonic() > end:
            break
        question = f"relay {MIX[turn % len(MIX)]}"
        if client is None:
            _, client = await loop.create_connection(Client, *address)
        asking = asyncio.ensure_future(client.ask(request(url, question)))
        if turn % LEAVE_EVERY == 0:
            await asyncio.wait({asking}, timeout=0.005)
            client.close()
            await asyncio.gather(asking, return_exceptions=True)
            client, seen.left = None, seen.left + 1
            continue
        try:
            status, body, _ = await asking
            wrong = fault(status, body)
        except OSError as error:
            wrong, client = f"{question}: {error!r}", None
        seen.streams += 1
        seen.errors += [wrong] if wrong else []
        await asyncio.sleep(PAUSE_SECONDS)
    if client is not None:
        client.close()


async def _watch(seen: Soak, process: psutil.Process, end: float) -> None:
    while time.monotonic() < end:
        seen.rss.append(process.memory_info().rss)
        seen.descriptors.append(process.num_fds())
        await asyncio.sleep(SAMPLE_SECONDS)


def run(seconds: float, clients: int = 16) -> Soak:
    """Start stub and orchestrator, and put the mix on them."""
    cores = Cores.of_this_machine()
    with (
        tempfile.TemporaryDirectory(prefix="trivium-soak-") as folder,
        stub(cores, free_port()) as worker,
        orchestrator(cores, worker, Path(folder)) as (url, process),
    ):
        return uvloop.run(soak(url, process, seconds, clients))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    seen = run(options.minutes * 60, options.clients)
    warm = min(60, len(seen.rss) // 3)
    growth, more = seen.growth(warm), seen.more_descriptors(warm)
    print(f"{seen.streams} streams, {seen.left} left by the client, {len(seen.errors)} errors")
    print(f"memory {seen.rss[warm] / MIB:.1f} MiB after {warm} s, {seen.rss[-1] / MIB:.1f} at the")
    print(f"end: {growth - 1:+.1%} (goal: at most 5 %); descriptors {more:+d}")
    if options.json is not None:
        figures = {"minutes": options.minutes, "clients": options.clients, "warm_seconds": warm}
        figures |= {"streams": seen.streams, "left": seen.left, "errors": len(seen.errors)}
        figures |= {"growth": growth, "rss": seen.rss, "descriptors": seen.descriptors}
        report.write_json(options.json, {"benchmark": "soak", **figures})
    if seen.errors or growth > MOST_GROWTH:
        sys.exit(f"failed: {seen.errors[:3]}" if seen.errors else "failed: memory grows")


if __name__ == "__main__":
    main()
