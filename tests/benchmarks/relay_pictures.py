"""The picture of the relay's benchmark: chunks/s and time to the first text of every side."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.relay_tables import GOALS

OTHERS, OURS, MARK = "#9aa5b1", "#c1121f", "#52606d"


def relay(result: dict[str, Any]) -> Figure:
    """A panel for each way in which the worker writes, and one for the first text."""
    panels = [*result.get("speed", ()), *([result["first"]] if "first" in result else ())]
    figure = Figure(figsize=(4.6 * len(panels), 2.8), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if "mode" in panel:
            _bars(axes, panel["sides"], "chunks_s", "{:,.0f}")
            axes.set_title(f"chunks/s, {panel['clients']} clients, {panel['mode']}", fontsize=10)
            axes.set_xscale("log")
        else:
            _bars(axes, panel["sides"], "first_ms", "{:.2f}")
            axes.set_title("ms to the first text, one client", fontsize=10)
        if panel.get("mode") == "burst":
            axes.axvline(GOALS["chunks_s"], color=MARK, linestyle=":", linewidth=1)
    machine = result["machine"]
    figure.supxlabel(
        f"{machine['cpu']}, proxies on one core, worker and load on another; dotted: the goal",
        fontsize=8,
        color=MARK,
    )
    return figure


def _bars(axes: Axes, sides: list[dict[str, Any]], key: str, form: str) -> None:
    """One bar a side, the first at the top, with its figure beside it."""
    names = [side["side"] for side in sides]
    colours = [OURS if name.startswith("Trivium") else OTHERS for name in names]
    bars = axes.barh(names, [side[key] for side in sides], color=colours)
    axes.bar_label(bars, [form.format(side[key]) for side in sides], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.spines[["top", "right"]].set_visible(False)
