"""An evaluation as a table and a picture, and the routers it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from router import baselines
from router.dataset import Query
from router.evaluate import Figures, figures
from router.head import Floats
from router.head_file import HeadFacts
from router.offline import OfflineEncoder
from router.solver import Labels
from router.training import labels_of

KEYS = ("accuracy", "expert_recall", "false_route_rate")


def compare(
    queries: Sequence[Query],
    features: Floats,
    facts: HeadFacts,
    encoder: OfflineEncoder,
    seen: Sequence[Query] | None,
    truth: Labels,
) -> dict[str, dict[str, float]]:
    """Figures of other routers by name, fitted on the same queries as the head.

    Empty if those are not there any more. `features` are those of `queries`.
    """
    if not seen:
        return {}
    labels = labels_of(seen, facts.experts)
    states = encoder.encode([query.messages for query in seen])
    words = encoder.words()
    size = words.shape[1]
    decide = baselines.published_recipe(words, states[:, :size], labels, len(facts.experts))
    decided = {"published recipe": decide(features[:, :size])}
    if (embed := baselines.embedding_model()) is not None:
        known, new = embed([q.text for q in seen]), embed([q.text for q in queries])
        decided["MiniLM, 5 nearest"] = baselines.nearest(known, labels, new)
        decided["MiniLM, logistic"] = baselines.logistic(known, labels, new)
    result = {}
    for name, decision in decided.items():
        found = figures(truth, decision, facts.experts)
        result[name] = {key: getattr(found, key) for key in KEYS}
    return result


def print_figures(
    result: Figures, others: dict[str, dict[str, float]], latency: dict[str, float]
) -> None:
    console = Console(highlight=False)
    table = Table("router", "accuracy", "expert recall", "false routes", box=None)
    ours = {key: getattr(result, key) for key in KEYS}
    for name, row in {"expert tokens": ours, **others}.items():
        table.add_row(name, *(f"{row[key]:.1%}" for key in KEYS))
    console.print(table)
    table = Table("expert", "queries", "recall", "precision", box=None)
    for name, found in result.per_expert.items():
        shares = (f"{found[key]:.1%}" for key in ("recall", "precision"))
        table.add_row(name, f"{found['n']:.0f}", *shares)
    console.print(table)
    numbers = [str(number) for number in range(len(result.labels))]
    table = Table("truth (rows), decision", *numbers, box=None)
    for number, name, counts in zip(numbers, result.labels, result.confusion, strict=True):
        table.add_row(f"{number} {name}", *(str(count) if count else "·" for count in counts))
    console.print(table)
    error = "" if result.ece is None else f", expected calibration error {result.ece:.1%}"
    print(
        f"{result.n} queries{error}; a decision adds {latency['decision_us']:.0f} µs to a prefill"
    )


def write_picture(result: Figures, path: Path) -> None:
    """Confusion matrix and reliability diagram, as PNG (or what `path` ends in)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5.5), width_ratios=[1.2, 1])
    counts = np.array(result.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            left.text(column, row, str(count), ha="center", va="center", color=colour)
    places = range(len(result.labels))
    left.set_xticks(places, result.labels, rotation=40, ha="right")
    left.set_yticks(places, result.labels)
    left.set(xlabel="decision", ylabel="truth", title=f"accuracy {result.accuracy:.1%}")
    right.plot([0, 1], [0, 1], color="grey", linestyle=":")
    largest = max((b.count for b in result.reliability), default=1)
    right.scatter(
        [b.confidence for b in result.reliability],
        [b.accuracy for b in result.reliability],
        s=[30 + 600 * b.count / largest for b in result.reliability],
        alpha=0.6,
    )
    for b in result.reliability:
        right.annotate(str(b.count), (b.confidence, b.accuracy), ha="center", va="center")
    error = "" if result.ece is None else f", expected calibration error {result.ece:.1%}"
    right.set(xlabel="P of the decision", ylabel="share right", title=f"reliability{error}")
    right.set(xlim=(0, 1.05), ylim=(0, 1.08))
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
