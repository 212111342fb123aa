"""The bank's figures in the terminal."""

from __future__ import annotations

import statistics
from typing import Any

from tests.benchmarks import report
from tests.benchmarks.bank_settings import SETS

GIB = 1 << 30
GOALS = {"speed": 2.0, "memory": 0.35}
"""A bank against one process for each expert: at least so many times the tokens/s of all streams,
at most so much of the memory."""


def tables(result: dict[str, Any]) -> None:
    """Print every part that was measured."""
    for part, show in PARTS.items():
        if part in result:
            show(result[part])


def ratios(row: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """`row` over `base`, both of `compare`: the tokens/s of each load, PSS, RSS, start-up."""
    speeds = zip(row["speed"], base["speed"], strict=True)
    return {
        "speed": {
            str(own["streams"]): own["tokens_s"] / other["tokens_s"] for own, other in speeds
        },
        "pss": row["memory"]["pss"] / base["memory"]["pss"],
        "rss": row["memory"]["rss"] / base["memory"]["rss"],
        "start": row["start_seconds"] / base["start_seconds"],
    }


def _compare(rows: list[dict[str, Any]]) -> None:
    base = rows[0]
    columns = ["side"]
    for case in base["speed"]:
        columns += [f"{_streams(case['streams'])}: tokens/s", "times"]
    columns += ["start s", "PSS GiB", "of", "RSS GiB", "of"]
    lines = []
    for row in rows:
        line = ["one process each" if row is base else f"bank, {SETS[row['set']]}"]
        ratio = ratios(row, base)
        for case in row["speed"]:
            line.append(f"{case['tokens_s']:.1f} ±{100 * case['spread']:.0f}%")
            line.append(f"{ratio['speed'][str(case['streams'])]:.2f}×")
        line.append(f"{row['start_seconds']:.0f}")
        for kind in ("pss", "rss"):
            line += [f"{row['memory'][kind] / GIB:.2f}", f"{ratio[kind]:.2f}×"]
        lines.append(line)
    report.show_table("\nA bank and one process for each expert, the same load", columns, lines)
    most = base["speed"][-1]["streams"]
    print(f"goal: {GOALS['speed']:g}× the tokens/s of {most} streams, {GOALS['memory']:g}× the PSS")


def _curve(rows: list[dict[str, Any]]) -> None:
    kinds = list(dict.fromkeys(row["set"] for row in rows))
    counts = list(dict.fromkeys(row["experts"] for row in rows))
    steps = {(row["set"], row["experts"]): 1e3 * row["step_seconds"] for row in rows}
    columns = ["experts in a batch", *(f"{SETS[kind]}: ms" for kind in kinds)]
    lines = [[str(n), *(f"{steps[kind, n]:.1f}" for kind in kinds)] for n in counts]
    report.show_table("\nOne decode step of all streams", columns, lines)


def _swaps(rows: list[dict[str, Any]]) -> None:
    columns = ["places", "tokens/s", "swaps", "ms a swap", "lone stream: first token ms"]
    columns += ["PSS GiB before", *(f"load {n + 1}" for n in range(len(rows[0]["loads"])))]
    lines = []
    for row in rows:
        seconds = row["swap_seconds"]
        line = [str(row["places"]), f"{row['tokens_s']:.1f}", str(row["swaps"])]
        line.append("-" if seconds is None else f"{1e3 * seconds:.1f}")
        line.append(f"{1e3 * row['lone_first_seconds']:.0f}")
        line += [f"{memory['pss'] / GIB:.3f}" for memory in row["memory"]]
        lines.append(line)
    report.show_table(
        "\nThe same random load, with few places and with one for each expert", columns, lines
    )


def _adding(rows: list[dict[str, Any]]) -> None:
    columns = ["experts", "seconds to the answer", "slowest", "longest pause ms, each addition"]
    columns += ["the same, expert known"]
    columns += ["undisturbed: median ms", "99 % ms", "longest ms"]
    lines = []
    for row in rows:
        seconds = [added["answer_seconds"] for added in row["added"]]
        line = [SETS[row["set"]], f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}"]
        for key in ("longest", "longest_known"):
            line.append(" ".join(f"{1e3 * added[key]:.0f}" for added in row["added"]))
        line += [f"{1e3 * row['undisturbed'][key]:.0f}" for key in ("median", "p99", "longest")]
        lines.append(line)
    report.show_table("\nAdding an expert while streams run", columns, lines)


PARTS = {"compare": _compare, "curve": _curve, "swaps": _swaps, "adding": _adding}


def _streams(count: int) -> str:
    return f"{count} stream{'s' if count > 1 else ''}"
