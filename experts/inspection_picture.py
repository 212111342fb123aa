"""The picture of `trivium ternary inspect`: shares of -1, 0 and +1, and scales over depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experts.inspection import Inspection, TernaryLayer, depth, kind

COLOURS = {"−1": "#3b6fb6", "0": "#d9d9d9", "+1": "#d1663a"}
"""Told apart also by the colour-blind, and in grey."""


def draw(inspection: Inspection, picture: Path) -> None:
    """Write a PNG. Raises OSError if it cannot be written."""
    groups: dict[str, list[TernaryLayer]] = {}
    for layer in inspection.layers:
        groups.setdefault(kind(layer.name), []).append(layer)
    figure = Figure(figsize=(12, 1.8 + 0.42 * max(6, len(groups))), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{inspection.folder}: {inspection.architecture}, {len(inspection.layers)} ternary layers"
    )
    left, right = figure.subplots(1, 2)
    _draw_shares(left, {**groups, "all": list(inspection.layers)})
    _draw_scales(right, groups)
    figure.savefig(picture, format="png")


def _draw_shares(axes: Any, groups: dict[str, list[TernaryLayer]]) -> None:
    """One stacked bar for each kind of layer."""
    totals = [sum(layer.weights for layer in layers) for layers in groups.values()]
    counts = {
        "−1": [sum(layer.negative for layer in layers) for layers in groups.values()],
        "0": [sum(layer.zero for layer in layers) for layers in groups.values()],
        "+1": [sum(layer.positive for layer in layers) for layers in groups.values()],
    }
    before = [0.0] * len(groups)
    for value, numbers in counts.items():
        shares = [100 * number / total for number, total in zip(numbers, totals, strict=True)]
        bars = axes.barh(list(groups), shares, left=before, color=COLOURS[value], label=value)
        axes.bar_label(
            bars,
            [f"{share:.0f}" if share >= 4 else "" for share in shares],
            label_type="center",
            color="black" if value == "0" else "white",
        )
        before = [a + b for a, b in zip(before, shares, strict=True)]
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="share of the weights, %", title="Values")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_scales(axes: Any, groups: dict[str, list[TernaryLayer]]) -> None:
    """One line for each kind of layer, over the blocks."""
    marker = "o" if max(map(len, groups.values())) <= 24 else ""
    for name, layers in groups.items():
        x = [depth(layer.name) for layer in layers]
        axes.plot(x, [layer.scale for layer in layers], marker=marker, label=name)
    axes.set(xlabel="block", ylabel="scale γ", title="Scales over depth")
    axes.set_ylim(0, 1.08 * max(layer.scale for layers in groups.values() for layer in layers))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
