"""The relay's figures in the terminal, beside what is aimed at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.benchmarks import report

MIB = 1 << 20
GOALS = {"chunks_s": 40_000, "unrouted_ms": 1.0, "handoff_ms": 2.0, "litellm_share": 0.05}
"""In bursts with 32 clients; added time to the first text; LiteLLM's share of the chunks/s."""


def tables(result: dict[str, Any]) -> None:
    """Print every part that was measured."""
    for part, show in PARTS.items():
        if part in result:
            show(result[part])


def _speed(modes: list[dict[str, Any]]) -> None:
    columns = ["side"]
    for mode in modes:
        columns += [f"{mode['mode']}: chunks/s", "CPU µs a chunk", "errors"]
    lines = []
    for rows in zip(*(mode["sides"] for mode in modes), strict=True):
        line = [rows[0]["side"]]
        for row in rows:
            cpu = row["cpu_us_per_chunk"]
            line += [f"{row['chunks_s']:,.0f}", "" if cpu is None else f"{cpu:.1f}"]
            line.append(str(row["errors"]))
        lines.append(line)
    report.show_table(f"\nSpeed, {modes[0]['clients']} clients", columns, lines)
    print(f"goal: {GOALS['chunks_s']:,} chunks/s through Trivium in bursts")


def _first(part: dict[str, Any]) -> None:
    lines = [
        [row["side"], f"{row['first_ms']:.2f}", f"{row['added_ms']:+.2f}", str(row["errors"])]
        for row in part["sides"]
    ]
    columns = ["side", "ms to the first text", "added", "errors"]
    report.show_table("\nTime to the first text, one client", columns, lines)
    print(
        f"goal: +{GOALS['unrouted_ms']:g} ms unrouted, +{GOALS['handoff_ms']:g} ms with a handoff"
    )


def _crowd(part: dict[str, Any]) -> None:
    rss = part["rss"]
    columns = [
        "clients",
        "errors",
        "chunks/s",
        "of one core",
        "MiB before",
        "once warm",
        "at the end",
    ]
    cells = [f"{part['chunks_s']:,.0f}", f"{part['cpu_share']:.0%}"]
    cells += [f"{rss[key] / MIB:.1f}" for key in ("before", "after_warm", "end")]
    line = [str(part["clients"]), str(part["errors"]), *cells]
    report.show_table(f"\nSlow streams, all at once, {part['seconds']:g} s", columns, [line])


PARTS: dict[str, Callable[[Any], None]] = {"speed": _speed, "first": _first, "crowd": _crowd}
