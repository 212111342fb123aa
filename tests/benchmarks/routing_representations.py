"""What each part of the joint fit gives: five-fold cross-validation on one file.

python -m tests.benchmarks.routing_representations TRAIN.jsonl
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold

from router.dataset import limit_per_expert, read_queries
from router.evaluate import figures
from router.features import Features
from router.joint import Training, decisions, fit_joint
from router.offline import OfflineEncoder
from router.prepare import prepare
from router.training import encode_training, experts_of, labels_of
from router.vocabulary import DEFAULT_SLOTS
from server.settings import Settings

LIMITS = (10, 25, None)
WITHOUT: dict[str, tuple[str, ...]] = {
    "all of it": (),
    "without the early layers": ("layers",),
    "without names": ("names",),
    "without views": ("views",),
    "without shipped queries": ("general",),
    "without kinds": ("kinds",),
    "the last state alone": ("layers", "names", "views", "general", "kinds"),
}


def columns(parts: tuple[str, ...], features: Features) -> np.ndarray:
    """Which columns of features are left without some `parts`."""
    return np.arange(features.hidden_size if "layers" in parts else features.size)


def strip(data: Training, parts: tuple[str, ...], kept: np.ndarray) -> Training:
    """`data` without some of what helps."""
    data = replace(
        data,
        features=data.features[:, kept],
        views=data.views[:, kept],
        shifts=data.shifts[:, :, kept],
        general=data.general[:, kept],
    )
    if "kinds" in parts:
        data = replace(data, kinds=np.zeros_like(data.kinds), general_kind=0)
    if "names" in parts:
        data = replace(data, shifts=data.shifts[:, :0])
    if "views" in parts:
        data = replace(data, views=data.views[:0], view_of=data.view_of[:0])
    return replace(data, general=data.general[:0]) if "general" in parts else data


def main(path: Path) -> None:
    cache = Settings().cache_dir
    encoder = OfflineEncoder(prepare(cache / "models", None, DEFAULT_SLOTS), cache / "encodings")
    queries = read_queries(path)
    experts = experts_of(queries)
    found: dict[tuple[str, int | None], list[tuple[float, float]]] = {}
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for seen, unseen in folds.split(queries, labels_of(queries, experts)):
        asked = [queries[i] for i in unseen]
        truth = labels_of(asked, experts)
        states = encoder.encode([query.messages for query in asked])
        for limit in LIMITS:
            few = limit_per_expert([queries[i] for i in seen], limit, 0)
            data = encode_training(few, encoder, lambda done, of: None)
            for name, parts in WITHOUT.items():
                kept = columns(parts, encoder.features)
                fit = fit_joint(strip(data, parts, kept))
                scores = fit.scores(states[:, kept])
                result = figures(truth, decisions(scores), experts)
                pair = (100 * result.accuracy, 100 * result.false_route_rate)
                found.setdefault((name, limit), []).append(pair)
    print(f"{'accuracy (false routes), %':28}" + "".join(f"{n or 'all':>15}" for n in LIMITS))
    for name in WITHOUT:
        means = [np.mean(found[name, limit], axis=0) for limit in LIMITS]
        print(f"{name:28}" + "".join(f"{a:8.1f} ({f:4.1f})" for a, f in means))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
