"""The benchmarks' pictures."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

COLOURS = {
    "ternary (ours)": "#c1121f",
    "llama.cpp TQ2_0": "#e08e2b",
    "llama.cpp Q4_0": "#f2c879",
    "int8 oneDNN": "#8ab0ab",
    "int8 FBGEMM": "#3e7c77",
    "float32": "#9aa5b1",
    "bf16": "#52606d",
}
OTHER_COLOURS = ("#6a4c93", "#1982c4", "#8ac926")


def kernel_cpu(result: dict[str, Any]) -> Figure:
    """Decode as bars by matrix, batches as lines by model; one row each for one core and all."""
    figures = result["figures"]
    models = list(dict.fromkeys(row["model"] for row in figures))
    threads = sorted({row["threads"] for row in figures})
    figure = Figure(figsize=(15, 3.6 * 2 * len(threads)), layout="constrained")
    grid = figure.add_gridspec(2 * len(threads), len(models))
    for i, count in enumerate(threads):
        own = [row for row in figures if row["threads"] == count]
        limit = 4 * result["bandwidth_gb_s"][str(count)]
        bars = figure.add_subplot(grid[i, :])
        _decode_bars(bars, [row for row in own if row["tokens"] == 1], limit)
        bars.set_title(f"Decode, one token, {_cores(count)}: weights streamed from memory")
        shared: Axes | None = None
        for j, model in enumerate(models):
            lines = figure.add_subplot(grid[len(threads) + i, j], sharey=shared)
            shared = shared or lines
            rows = [row for row in own if row["model"] == model and row["matrix"] == "down"]
            _batch_lines(lines, rows, "tokens")
            shape = f"{rows[0]['out']} × {rows[0]['inputs']}" if rows else ""
            lines.set_title(f"{model} {shape}, {_cores(count)}")
            if j == 0:
                lines.set_ylabel("G weights/s × tokens")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    machine = result["machine"]
    figure.supxlabel(
        f"{machine['cpu']}, {', '.join(machine['isa'])}; torch {machine['torch']};"
        f" our path: {result['kernel']}",
        fontsize=9,
        color="#52606d",
    )
    return figure


def _decode_bars(axes: Axes, rows: list[dict[str, Any]], limit: float) -> None:
    cases = list(dict.fromkeys((r["model"], r["matrix"], r["out"], r["inputs"]) for r in rows))
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        own = [row for row in rows if row["contestant"] == name]
        places = [case + (i - (len(names) - 1) / 2) * width for case in range(len(cases))]
        heights = [row["gweights"] for row in own]
        axes.bar(places, heights, width, label=name, color=_colour(name, i))
        if name == "ternary (ours)":
            for x, y in zip(places, heights, strict=True):
                axes.annotate(f"{y:.0f}", (x, y), ha="center", va="bottom", fontsize=8)
    axes.axhline(limit, color="#c1121f", linestyle=":", linewidth=1)
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
    axes.text(
        1, limit, f"memory limit at 2 bits ({limit:.0f})", color="#c1121f", fontsize=8, **place
    )
    axes.set_xticks(range(len(cases)), [f"{m} {n}\n{o} × {i}" for m, n, o, i in cases], fontsize=8)
    axes.set_ylabel("G weights/s")
    axes.margins(x=0.01)
    axes.set_ylim(0, 1.12 * max(limit, *(row["gweights"] for row in rows)))
    _plain(axes)


def _batch_lines(axes: Axes, rows: list[dict[str, Any]], x: str) -> None:
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    for i, name in enumerate(names):
        own = [row for row in rows if row["contestant"] == name]
        heavy = 2.2 if name == "ternary (ours)" else 1.4
        places, heights = [row[x] for row in own], [row["gweights"] for row in own]
        axes.plot(places, heights, "o-", color=_colour(name, i), markersize=3.5, linewidth=heavy)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({row[x] for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)


def _cores(threads: int) -> str:
    return "one core" if threads == 1 else f"{threads} cores"


def _colour(name: str, i: int) -> str:
    return COLOURS.get(name, OTHER_COLOURS[i % len(OTHER_COLOURS)])


def ternary(result: dict[str, Any]) -> Figure:
    """Tokens/s for each number of streams, and memory, of every variant."""
    rows = result["variants"]
    streams = [case["streams"] for case in rows[0]["decode"]]
    figure = Figure(figsize=(4.4 * (len(streams) + 1), 4.2), layout="constrained")
    panels = figure.subplots(1, len(streams) + 1)
    names = [row["name"].replace(", ", ",\n") for row in rows]
    colours = ["#c1121f" if row["precision"] == "ternary" else "#52606d" for row in rows]
    for i, (axes, count) in enumerate(zip(panels, streams, strict=False)):
        speeds = [row["decode"][i]["tokens_s"] for row in rows]
        bars = axes.bar(names, speeds, color=colours)
        labels = [f"{speed:.1f}\n({speed / speeds[0]:.1f}×)" for speed in speeds]
        axes.bar_label(bars, labels, fontsize=8)
        axes.set_title(f"Decode, {count} stream{'s' if count > 1 else ''}")
        axes.set_ylabel("tokens/s in all")
    gib = 1 << 30
    axes = panels[-1]
    layers = [row["linear_bytes"] / gib for row in rows]
    rest = [row["memory"]["steady"] / gib - own for row, own in zip(rows, layers, strict=True)]
    bars = axes.bar(names, layers, color=colours)
    axes.bar_label(bars, [f"{row['linear_of_bf16']:.3f}×" for row in rows], fontsize=8)
    axes.bar(names, rest, bottom=layers, color="#cbd2d9", label="rest of the process")
    axes.set_title("Memory (linear layers, times bf16)")
    axes.set_ylabel("GiB")
    axes.legend(frameon=False, fontsize=8)
    for axes in panels:
        axes.margins(y=0.18)
        axes.tick_params(axis="x", labelsize=8)
        _plain(axes)
    machine = result["machine"]
    figure.supxlabel(
        f"Llama {result['model']['name']}, {result['vllm']}; {machine['cpu']},"
        f" {machine['cores']} cores, {', '.join(machine['isa'])}; kernel {result['kernel']}",
        fontsize=8,
        color="#52606d",
    )
    return figure


def kernel_cuda(result: dict[str, Any]) -> Figure:
    """Speed against bf16 by batch, one block of each model; decode and memory beside the
    paper's ratios."""
    figures = result["figures"]
    models = list(dict.fromkeys(row["model"] for row in figures))
    names = list(dict.fromkeys(row["contestant"] for row in figures))
    figure = Figure(figsize=(5 * max(2, len(models)), 8), layout="constrained")
    grid = figure.add_gridspec(2, 2 * len(models))
    shared: Axes | None = None
    for i, model in enumerate(models):
        axes = figure.add_subplot(grid[0, 2 * i : 2 * i + 2], sharey=shared)
        shared = shared or axes
        _cuda_lines(axes, [row for row in figures if row["model"] == model], names)
        axes.set_title(f"{model}: products of one block")
        if i == 0:
            axes.set_ylabel("times faster than bf16")
    figure.axes[0].set_ylim(bottom=0)  # shared, so only when all is drawn
    bars = figure.add_subplot(grid[1, : len(models)])
    latency = result["latency_ratios"]
    own = {name: [latency[m].get(name, 0.0) for m in models] for name in names[1:]}
    _ratio_bars(bars, models, own, result["paper"]["latency"], names)
    bars.set_title("Decode, one token, one block: times faster than bf16")
    bars = figure.add_subplot(grid[1, len(models) :])
    rows = {(row["model"], row["precision"]): row["computed"] for row in result["memory"]}
    sizes = [rows[m, "bf16"] / rows[m, "ternary"] for m in models]
    _ratio_bars(bars, models, {"weights": sizes}, result["paper"]["memory"], ["weights"])
    bars.set_title("Memory of the whole model: times smaller than bf16")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    machine = result["machine"]
    figure.supxlabel(
        f"{machine['gpu']}, driver {machine['driver']}, torch {machine['torch']};"
        " the paper compares whole models in fp16, on its own kernel",
        fontsize=9,
        color="#52606d",
    )
    return figure


def _cuda_lines(axes: Axes, rows: list[dict[str, Any]], names: list[str]) -> None:
    """Time of bf16 over time, summed over the block's matrices, by number of tokens."""
    tokens = sorted({row["tokens"] for row in rows})

    def total(name: str, count: int) -> float:
        own = [r["seconds"] for r in rows if r["contestant"] == name and r["tokens"] == count]
        whole = len(own) == len({row["matrix"] for row in rows})
        return sum(own) if whole else float("nan")

    for i, name in enumerate(names):
        heights = [total(names[0], count) / total(name, count) for count in tokens]
        axes.plot(tokens, heights, "o-", color=_cuda_colour(i), label=name, markersize=3.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(tokens, [str(count) for count in tokens])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("tokens")
    _plain(axes)


def _ratio_bars(
    axes: Axes,
    models: list[str],
    own: dict[str, list[float]],
    paper: dict[str, float],
    names: list[str],
) -> None:
    series = {**own, "paper": [paper.get(model, 0.0) for model in models]}
    width = 0.8 / len(series)
    for i, (name, heights) in enumerate(series.items()):
        places = [case + (i - (len(series) - 1) / 2) * width for case in range(len(models))]
        colour = "#cbd2d9" if name == "paper" else _cuda_colour(names.index(name) or 1)
        bars = axes.bar(places, heights, width, color=colour, label=name)
        axes.bar_label(bars, [f"{h:.2f}×" if h else "" for h in heights], fontsize=8)
        if name == "paper":
            axes.legend([bars], ["paper"], frameon=False, fontsize=8, loc="upper left")
    axes.set_xticks(range(len(models)), models)
    axes.margins(y=0.15)
    _plain(axes)


def _cuda_colour(i: int) -> str:
    return ("#52606d", "#c1121f", "#e08e2b", "#3e7c77", *OTHER_COLOURS)[i]
