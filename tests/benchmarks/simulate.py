"""Is the simulation true? A served system's latencies beside those simulated for the same trace.

Service times are measured with single requests and a few at once; then a Poisson trace is fired,
and the same arrivals, lengths and routes are simulated. `trivium serve` must run, with nothing
else on the machine:

    python -m tests.benchmarks.simulate --url http://127.0.0.1:8000 --expert arithmetic
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from experts.plan.simulation.cluster import Outcome, Pool, Setting, simulate
from experts.plan.simulation.engine import Limits
from experts.plan.simulation.requests import META, Request, arrival_times
from experts.plan.simulation.service import StepTime
from experts.plan.simulation.sizing import percentiles
from experts.starter import arithmetic_folder
from experts.starter.evaluation import load_questions
from server.commands.starter import GENERAL_FILE
from tests.benchmarks import report
from tests.benchmarks.load import LoadError
from tests.benchmarks.simulate_load import Answer, ask, fire, prompt_of

KEEP_ALIVE = 2.0
"""Seconds after which an idle connection is not used again: fewer than a server waits."""
TOKENS = 64
SHORT, LONG = 8, 400
"""Words of calibration prompts."""
STREAMS = 8
REPEATS = 3
SEQUENCES = 64
"""`--max-num-seqs` of managed workers on a CPU."""


@dataclass(frozen=True)
class Single:
    """One model's answers, alone: to short and long prompts, and several at once."""

    short: list[Answer]
    long: list[Answer]
    several: list[Answer]


def fitted(single: Single) -> tuple[StepTime, float]:
    """The step's terms, and seconds of a request besides its steps (both ways).

    The step alone is that of one stream, its growth with the batch that of several at once. What
    a longer prompt adds to the first token is prefill.
    """
    one = statistics.median(answer.step for answer in single.short)
    many = statistics.median(answer.step for answer in single.several)
    each = min(one, max(0.0, (many - one) / (len(single.several) - 1)))
    first_short, first_long = (
        statistics.median(a.first for a in side) for side in (single.short, single.long)
    )
    more = single.long[0].prompt - single.short[0].prompt
    prefill = max(0.0, (first_long - first_short) / more)
    step = StepTime(fixed=one - each, per_sequence=each, per_prefill=prefill)
    outside = first_short - step.seconds(1, single.short[0].prompt, 0)
    return step, max(0.0, outside)


async def calibrate(session: aiohttp.ClientSession, model: str) -> Single:
    """Ask one model alone; the first answers are thrown away."""
    await ask(session, model, prompt_of(SHORT), TOKENS, exactly=True)

    async def some(words: int) -> list[Answer]:
        return [
            await ask(session, model, prompt_of(words), TOKENS, exactly=True)
            for _ in range(REPEATS)
        ]

    short, long = await some(SHORT), await some(LONG)
    work = (ask(session, model, prompt_of(SHORT), TOKENS, exactly=True) for _ in range(STREAMS))
    return Single(short, long, list(await asyncio.gather(*work)))


async def contention(session: aiohttp.ClientSession, models: Sequence[str], alone: float) -> float:
    """How much longer a step of the first model takes while the second computes, as a share."""
    ahead = asyncio.create_task(ask(session, models[1], prompt_of(SHORT), 8 * TOKENS, exactly=True))
    beside = await ask(session, models[0], prompt_of(SHORT), TOKENS, exactly=True)
    await ahead
    return max(0.0, beside.step / alone - 1)


async def handoff(session: aiohttp.ClientSession, questions: Sequence[str]) -> float:
    """Seconds between the meta LLM's part and the expert's, of questions that were handed over."""
    answers = [await ask(session, "trivium", question, TOKENS) for question in questions]
    return statistics.median([a.gap for a in answers if a.expert] or [0.0])


def replayed(answers: Sequence[Answer]) -> list[Request]:
    """The requests that were fired, in order of arrival, with the lengths that came back."""
    begin = min(answer.began for answer in answers)
    found = [
        Request(
            a.began - begin,
            a.prompt,
            a.meta_tokens if a.expert else max(1, a.meta_tokens),
            META if a.expert is None else 0,
            a.expert_tokens,
        )
        for a in answers
    ]
    return sorted(found, key=lambda request: request.arrival)


def compare(answers: Sequence[Answer], outcome: Outcome) -> list[dict[str, Any]]:
    """A row for each percentile of both latencies: measured, simulated, their ratio."""
    rows = []
    for what, real, simulated in (
        ("first token", [a.first for a in answers], outcome.first),
        ("latency", [a.latency for a in answers], outcome.latency),
    ):
        for name, value in percentiles(np.array(real)).items():
            made = percentiles(simulated)[name]
            rows.append(
                {
                    "what": f"{what} {name}",
                    "measured": value,
                    "simulated": made,
                    "ratio": made / value,
                }
            )
    return rows


async def measure(url: str, expert: str, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """Calibrate, fire, simulate. Raises LoadError, aiohttp.ClientError."""
    rng = np.random.default_rng(seed)
    times = arrival_times(rate, max(2, round(rate * seconds)), rng)
    questions = ask_what(len(times), rng)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    connector = aiohttp.TCPConnector(keepalive_timeout=KEEP_ALIVE)
    base = url.rstrip("/") + "/"
    async with aiohttp.ClientSession(base, timeout=timeout, connector=connector) as session:
        pinned = ["trivium/meta", f"trivium/{expert}"]
        report.progress("measuring service times")
        (meta, outside), (other, _) = [fitted(await calibrate(session, m)) for m in pinned]
        slower = await contention(session, pinned, meta.seconds(1, 0, 0))
        between = await handoff(session, ask_what(REPEATS, rng, expert_share=1.0))
        report.progress(f"firing {len(times)} requests, {rate:g} a second")
        answers = await fire(session, [float(time) for time in times], questions, TOKENS)
    limits = Limits(SEQUENCES)
    pools = (Pool("meta", meta, limits), Pool(expert, other, limits, experts=(0,)))
    setting = Setting(pools, network=outside / 2, handoff=between, contention=slower)
    return {
        "benchmark": "simulate",
        "rate": rate,
        "requests": len(times),
        "handed_over": sum(answer.expert is not None for answer in answers),
        "steps": {"meta": asdict(meta), expert: asdict(other)},
        "network_seconds": outside / 2,
        "handoff_seconds": between,
        "contention": slower,
        "percentiles": compare(answers, simulate(replayed(answers), setting)),
    }


def ask_what(number: int, rng: np.random.Generator, expert_share: float = 0.5) -> list[str]:
    """Questions that the shipped expert and the meta LLM are evaluated with, mixed."""
    sums = [q.messages[-1]["content"] for q in load_questions(arithmetic_folder())]
    general = GENERAL_FILE.read_text(encoding="utf-8").splitlines()
    pick = rng.random(number) < expert_share
    return [str(rng.choice(sums if own else general)) for own in pick]


def run(url: str, expert: str, rate: float, seconds: float, seed: int, out: Path | None) -> None:
    """Print the table, write the figures."""
    try:
        result = asyncio.run(measure(url, expert, rate, seconds, seed))
    except (LoadError, aiohttp.ClientError) as error:
        sys.exit(f"error: {error}; is `trivium serve` running at {url}, with {expert}?")
    lines = [
        [row["what"], *(f"{row[name]:.3f}" for name in ("measured", "simulated", "ratio"))]
        for row in result["percentiles"]
    ]
    report.show_table("Seconds", ["", "measured", "simulated", "ratio"], lines)
    if out is not None:
        report.write_json(out, {"machine": report.describe_cpu(), **result})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--expert", default="arithmetic", help="the expert that answers sums")
    parser.add_argument("--rate", type=float, default=0.5, help="requests a second")
    parser.add_argument("--seconds", type=float, default=120, help="of the trace")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args(arguments)
    run(given.url, given.expert, given.rate, given.seconds, given.seed, given.json)


if __name__ == "__main__":
    main()
