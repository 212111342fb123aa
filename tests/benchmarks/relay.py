"""`trivium bench relay`: what it costs that a stream goes through Trivium.

The orchestrator runs on one core (`--workers N`: on N), a stub worker (`relay_stub.py`) and the
load (`relay_load.py`) on another, if there is one. In every round all sides take turns: the stub
alone, Trivium unrouted, Trivium with a handoff, and the proxies given by `--against`. Figures are
medians over the rounds.

- speed: streams of 64 chunks, 32 clients; the worker writes a whole answer at once (`burst`), or
  every chunk by itself (`single writes`)
- first: one client, a chunk every 2 ms; the time to its first text, over that of the stub alone.
  With a handoff the expert token comes first, so that two workers are asked before there is text.
- crowd: 1,000 clients at once, each with a chunk every 100 ms, and the memory that they take
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks import relay_tables, report
from tests.benchmarks.relay_servers import Cores, RelayError, Side, load, orchestrator, stub
from tests.benchmarks.relay_text import CHUNKS

MODES = {"burst": "", "single writes": "single-writes"}
"""How the worker writes, and the word that makes the stub do so."""
SAMPLE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 4.0
    """Of each load."""
    clients: int = 32
    crowd: int = 1000
    crowd_seconds: float = 60.0
    workers: int = 1
    """Processes of the orchestrator; several share the cores with the stub and the load."""
    stub_port: int = 18100
    """Fixed, so that the proxies of `--against` can be pointed at the stub."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What the parts work with. `sides` begin with the stub alone."""

    settings: Settings
    cores: Cores
    sides: tuple[Side, ...]

    def load(self, side: Side, words: str, clients: int) -> dict[str, Any]:
        return load(self.cores, side, words, clients, self.settings.seconds)


# ---------------------------------------------------------------- parts


def measure_speed(bench: Bench) -> list[dict[str, Any]]:
    """Chunks/s of each side, in both modes."""
    return [_speed(bench, mode, words) for mode, words in MODES.items()]


def _speed(bench: Bench, mode: str, words: str) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {side.name: [] for side in bench.sides}
    for number in range(bench.settings.rounds):
        report.progress(f"speed, {mode}: round {number + 1} of {bench.settings.rounds}")
        for side in bench.sides:
            result = bench.load(side, f"{words} handoff-middle", bench.settings.clients)
            rows[side.name].append(_speed_row(result))
    return {"mode": mode, "clients": bench.settings.clients, "sides": _medians(rows)}


def _speed_row(result: dict[str, Any]) -> dict[str, Any]:
    cpu, chunks = result["cpu_seconds"], result["all"] * CHUNKS
    return {
        "chunks_s": result["streams"] * CHUNKS / result["seconds"],
        "cpu_us_per_chunk": cpu / chunks * 1e6 if cpu is not None and chunks else None,
        "errors": result["errors"],
        "messages": result["messages"],
    }


def measure_first(bench: Bench) -> dict[str, Any]:
    """Milliseconds to the first text, one client."""
    rows: dict[str, list[dict[str, Any]]] = {side.name: [] for side in bench.sides}
    for number in range(bench.settings.rounds):
        report.progress(f"first text: round {number + 1} of {bench.settings.rounds}")
        base = 0.0
        for side in bench.sides:
            result = bench.load(side, "steady handoff-start", 1)
            first = statistics.median(result["first"] or [float("nan")]) * 1000
            base = base or first
            errors = {"errors": result["errors"], "messages": result["messages"]}
            rows[side.name].append({"first_ms": first, "added_ms": first - base, **errors})
    return {"clients": 1, "sides": _medians(rows)}


def measure_crowd(bench: Bench) -> dict[str, Any]:
    """Many clients on slow streams: errors, chunks/s, and the orchestrator's memory."""
    settings, side = bench.settings, next(s for s in bench.sides if s.process)
    assert side.process is not None
    report.progress(f"crowd: {settings.crowd} clients for {settings.crowd_seconds:g} s")
    began, seconds, warm = time.monotonic(), settings.crowd_seconds, 10.0
    with _Memory(side.process) as memory:
        result = load(bench.cores, side, "slow", settings.crowd, seconds, warm)
    late = memory.samples[int(warm / SAMPLE_SECONDS) :]
    return {
        "clients": settings.crowd,
        "seconds": settings.crowd_seconds,
        "errors": result["errors"],
        "messages": result["messages"],
        "chunks_s": result["streams"] * CHUNKS / result["seconds"],
        "cpu_share": result["cpu_seconds"] / (time.monotonic() - began),
        "rss": {"before": memory.samples[0], "after_warm": late[0], "end": late[-1]},
        "rss_samples": memory.samples,
    }


class _Memory:
    """Resident bytes of a process and its children, every SAMPLE_SECONDS, in a thread."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._over = process, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.samples: list[int] = []

    def __enter__(self) -> _Memory:
        self.samples.append(resident_bytes(self._process))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.samples.append(resident_bytes(self._process))


def resident_bytes(process: psutil.Process) -> int:
    """Of a process and its children."""
    return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])


def _medians(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row a side: medians of figures, sums of errors, and every round's figures."""
    merged = []
    for name, rounds in rows.items():
        row: dict[str, Any] = {"side": name}
        for key in rounds[0]:
            values = [r[key] for r in rounds]
            if key == "errors":
                row[key] = sum(values)
            elif key == "messages":
                row[key] = [message for value in values for message in value][:3]
            else:
                row[key] = statistics.median(values) if None not in values else None
        merged.append(row | {"rounds": rounds})
    return merged


PARTS: dict[str, Callable[[Bench], Any]] = {
    "speed": measure_speed,
    "first": measure_first,
    "crowd": measure_crowd,
}


# ---------------------------------------------------------------- the run


def measure(
    settings: Settings, parts: Sequence[str], against: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """All figures. Raises RelayError."""
    cores = Cores.of_this_machine()
    with (
        tempfile.TemporaryDirectory(prefix="trivium-relay-") as folder,
        stub(cores, settings.stub_port) as worker,
        orchestrator(cores, worker, Path(folder), settings.workers) as (url, process),
    ):
        sides = (
            Side("the worker alone", f"{worker}/v1", "alone"),
            Side("Trivium, unrouted", url, "alone", process),
            Side("Trivium, handoff", url, "", process),
            *(Side(name, address, "alone") for name, address in against),
        )
        bench = Bench(settings, cores, sides)
        return {part: PARTS[part](bench) for part in parts}


def run(
    settings: Settings,
    parts: Sequence[str],
    against: Sequence[tuple[str, str]],
    json_out: Path | None,
) -> None:
    """Measure, print the tables, write figures and picture."""
    machine = report.describe_cpu()
    about = {"benchmark": "relay", "machine": machine, "settings": dataclasses.asdict(settings)}
    try:
        result = about | measure(settings, parts, against)
    except RelayError as error:
        sys.exit(f"error: {error}")
    print(f"{machine['cpu']}, {machine['cores']} cores")
    relay_tables.tables(result)
    if json_out is not None:
        report.write_json(json_out, result)
        if any(part in result for part in ("speed", "first")):
            report.picture_beside(json_out, "relay", result, "relay_pictures")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here, the picture beside it")
    parser.add_argument("--only", choices=sorted(PARTS), help="measure this part alone")
    parser.add_argument(
        "--against",
        action="append",
        type=_name_and_url,
        default=[],
        metavar="NAME=URL",
        help="another proxy in front of the stub, by its base URL with /v1; it must serve the model"
        " `trivium`; can be given several times",
    )
    for field in dataclasses.fields(Settings):
        kind = int if isinstance(field.default, int) else float
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    options = parser.parse_args(arguments)
    settings = Settings(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Settings)})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    run(settings, [options.only] if options.only else list(PARTS), options.against, options.json)


def _name_and_url(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not (name and equals and url.startswith("http")):
        raise argparse.ArgumentTypeError("write NAME=URL, e.g. LiteLLM=http://127.0.0.1:4000/v1")
    return name, url.rstrip("/")


if __name__ == "__main__":
    main()
