"""The picture of the bank's benchmark: a panel for each part that was measured, and more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from tests.benchmarks.bank_settings import SETS
from tests.benchmarks.bank_tables import GOALS, ratios

PROCESSES, SHARED, OWN, MARK = "#52606d", "#c1121f", "#e08e2b", "#9aa5b1"
KINDS = {"shared": SHARED, "own": OWN}
GIB = 1 << 30


def bank(result: dict[str, Any]) -> Figure:
    """Tokens/s and memory against one process each; steps, swaps and additions of a bank."""
    panels = [(part, draw) for part, draw in PANELS if part in result]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 4 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (part, draw) in zip(grid, panels, strict=False):
        draw(axes, result[part])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    machine, settings = result["machine"], result["settings"]
    figure.supxlabel(
        f"Llama {result['model']['name']}, {result['vllm']}, {settings['streams']} streams;"
        f" {machine['cpu']}, {machine['cores']} cores, {', '.join(machine['isa'])};"
        f" kernel {result['kernel']}; KV cache {settings['kv_mib']} MiB a server",
        fontsize=8,
        color=PROCESSES,
    )
    return figure


def _speed(axes: Axes, rows: list[dict[str, Any]]) -> None:
    streams = [case["streams"] for case in rows[0]["speed"]]
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        places = [place + (i - (len(rows) - 1) / 2) * width for place in range(len(streams))]
        heights = [case["tokens_s"] for case in row["speed"]]
        ranges = [
            [h - min(case["rounds"]) for h, case in zip(heights, row["speed"], strict=True)],
            [max(case["rounds"]) - h for h, case in zip(heights, row["speed"], strict=True)],
        ]
        error = {"ecolor": MARK, "elinewidth": 1, "capsize": 2}
        bars = axes.bar(places, heights, width, yerr=ranges, error_kw=error, color=_colour(row))
        bars.set_label(_side(row))
        ratio = ratios(row, rows[0])["speed"]
        axes.bar_label(bars, [f"{ratio[str(n)]:.2f}×" for n in streams], fontsize=8, padding=2)
    goal = GOALS["speed"] * rows[0]["speed"][-1]["tokens_s"]
    axes.plot([len(streams) - 1.4, len(streams) - 0.6], [goal, goal], ":", color="black")
    axes.set_xticks(range(len(streams)), [f"{n} stream{'s' if n > 1 else ''}" for n in streams])
    axes.set_ylabel("tokens/s in all")
    axes.set_title("Decode; dotted: the goal")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.margins(y=0.15)


def _memory(axes: Axes, rows: list[dict[str, Any]]) -> None:
    heights = [row["memory"]["pss"] / GIB for row in rows]
    bars = axes.bar([_side(row) for row in rows], heights, color=[_colour(row) for row in rows])
    labels = [
        f"{ratios(row, rows[0])['pss']:.2f}×\n{row['start_seconds']:.0f} s to start" for row in rows
    ]
    axes.bar_label(bars, labels, fontsize=8)
    axes.axhline(GOALS["memory"] * heights[0], linestyle=":", color="black", linewidth=1)
    axes.set_ylabel("GiB, proportional set size")
    axes.set_title("Memory of all processes; dotted: the goal")
    axes.tick_params(axis="x", labelsize=8)
    axes.margins(y=0.18)


def _curve(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for kind, colour in KINDS.items():
        own = [row for row in rows if row["set"] == kind]
        counts = [row["experts"] for row in own]
        low = [1e3 * min(row["rounds"]) for row in own]
        high = [1e3 * max(row["rounds"]) for row in own]
        axes.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
        heights = [1e3 * row["step_seconds"] for row in own]
        axes.plot(counts, heights, "o-", color=colour, label=SETS[kind])
    ticks = sorted({row["experts"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("experts in the batch")
    axes.set_ylabel("ms")
    axes.set_title("One decode step of all streams")
    axes.legend(frameon=False, fontsize=8)


def _swaps(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for row, colour in zip(rows, (OWN, SHARED), strict=True):
        memory = [each["pss"] / GIB for each in row["memory"]]
        swaps = f"{row['swaps']} swaps"
        if row["swap_seconds"] is not None:
            swaps += f" of {1e3 * row['swap_seconds']:.1f} ms"
        label = f"{row['places']} places: {row['tokens_s']:.0f} tokens/s, {swaps}"
        axes.plot(range(len(memory)), memory, "o-", color=colour, label=label)
    axes.set_xticks(range(len(rows[0]["memory"])))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("times that the random load was put on")
    axes.set_ylabel("GiB, proportional set size")
    axes.set_title("More experts than places: speed, memory")
    axes.legend(frameon=False, fontsize=8)


def _adding(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for i, row in enumerate(rows):
        quiet, added = row["undisturbed"], row["added"]
        pauses = [quiet["median"], quiet["p99"], quiet["longest"]]
        pauses += [max(each[key] for each in added) for key in ("longest_known", "longest")]
        places = [place + (i - (len(rows) - 1) / 2) * 0.4 for place in range(len(pauses))]
        heights = [1e3 * pause for pause in pauses]
        slowest = max(each["answer_seconds"] for each in added)
        label = f"{SETS[row['set']]}: answers after {slowest:.1f} s at most"
        bars = axes.bar(places, heights, 0.4, color=KINDS[row["set"]], label=label)
        axes.bar_label(bars, [f"{height:.0f}" for height in heights], fontsize=8)
    names = ["median", "99 %", "longest", "longest, one\nmore asked", "longest,\none added"]
    axes.set_xticks(range(5), names)
    axes.set_ylabel("ms between two tokens")
    axes.set_title("Adding experts while streams run")
    axes.legend(frameon=False, fontsize=8)
    axes.margins(y=0.15)


Draw = Callable[[Axes, list[dict[str, Any]]], None]
PANELS: tuple[tuple[str, Draw], ...] = (
    ("compare", _speed),
    ("compare", _memory),
    ("curve", _curve),
    ("swaps", _swaps),
    ("adding", _adding),
)


def _side(row: dict[str, Any]) -> str:
    if row["side"] == "processes":
        return "one process\neach"
    return (
        f"bank, {SETS[row['set']].replace(' for', chr(10) + 'for').replace(' in', chr(10) + 'in')}"
    )


def _colour(row: dict[str, Any]) -> str:
    return PROCESSES if row["side"] == "processes" else KINDS[row["set"]]
