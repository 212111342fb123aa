"""Thousands of generated requests against the API: does anything break, hang or leak?

    python -m tests.benchmarks.fuzz_api --cases 5000

Workers are fake; the HTTP server, the orchestrator and its clients are real. Prints a line a round
and exits with 1 if a check failed or something was left open.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.fuzzing import fuzz, site_to_fuzz

EXAMPLES = 100
"""Random requests an operation and round."""
IDLE_SECONDS = 20
"""Until connections that are kept for the next request are closed."""


@dataclass(frozen=True)
class Open:
    """What the process holds."""

    files: int
    tasks: int

    @classmethod
    def now(cls) -> Open:
        return cls(psutil.Process().num_fds(), len(asyncio.all_tasks()))


async def main(cases: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="trivium-fuzz-"))
    async with site_to_fuzz(folder) as site:
        url = str(site.http.base_url).rstrip("/")
        await site.http.get("/health")
        await asyncio.sleep(IDLE_SECONDS)
        before, done, seed, failed = Open.now(), 0, 0, False
        while done < cases:
            seed += 1
            phases = "coverage,fuzzing,stateful" if seed == 1 else "fuzzing,stateful"
            found = await fuzz(url, phases=phases, folder=folder, examples=EXAMPLES, seed=seed)
            done, failed = done + found.cases, failed or found.status != 0
            print(f"seed {seed}: {found.cases} requests in {found.seconds:.0f} s, {done} in all")
            if found.status:
                print(found.output)
        await asyncio.sleep(IDLE_SECONDS)
        after = Open.now()
    print(f"open before: {before}, after: {after}")
    return int(failed or after.files > before.files or after.tasks > before.tasks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="requests to send at least")
    sys.exit(asyncio.run(main(parser.parse_args().cases)))
