"""The loss curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TRAINING, HELD_OUT, WARM_UP = "#2f6db5", "#d1622b", "#8c8c8c"


def draw_loss(history: Sequence[dict[str, float]], title: str, file: Path) -> None:
    """Training and held-out cross-entropy (nats a token) over the steps of the Trainer's log, λ
    as a shaded area on a second axis. Writes `file` as PNG."""
    from matplotlib.figure import Figure  # draws with Agg: no display, no global state

    lines = [line for line in history if "loss" in line]
    held_out = [line for line in history if "eval_loss" in line]
    figure = Figure(figsize=(8, 4.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    _draw_strength(axes.twinx(), lines)
    name = "cross_entropy" if any("cross_entropy" in line for line in lines) else "loss"
    axes.plot(_column(lines, "step"), _column(lines, name), color=TRAINING, label="training")
    if held_out:
        steps, values = _column(held_out, "step"), _column(held_out, "eval_loss")
        axes.plot(steps, values, "o-", color=HELD_OUT, markersize=3.5, label="held out")
    _dress(axes, title)
    figure.savefig(file, format="png")


def _column(lines: Sequence[dict[str, float]], name: str) -> npt.NDArray[np.float64]:
    return np.array([line.get(name, np.nan) for line in lines], dtype=np.float64)


def _draw_strength(axes: Any, lines: Sequence[dict[str, float]]) -> None:
    """λ behind the curves, from 0 to 1 on the right."""
    steps, strength = _column(lines, "step"), _column(lines, "strength")
    axes.fill_between(steps, strength, color=WARM_UP, alpha=0.13, linewidth=0)
    axes.set_ylim(0, 1.04)
    axes.set_ylabel("quantization λ", color=WARM_UP)
    axes.tick_params(colors=WARM_UP)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _dress(axes: Any, title: str) -> None:
    axes.set_zorder(2)
    axes.patch.set_visible(False)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy, nats a token")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
