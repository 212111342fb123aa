"""Few examples, many seeds: accuracy of the joint fit at 10, 25 and all examples per expert.

python -m tests.benchmarks.routing TRAIN.jsonl UNSEEN.jsonl
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from router.dataset import limit_per_expert, read_queries
from router.evaluate import figures
from router.joint import decisions, fit_joint
from router.offline import OfflineEncoder
from router.prepare import prepare
from router.solver import FIT_THREADS
from router.training import encode_training, experts_of, labels_of
from router.vocabulary import DEFAULT_SLOTS
from server.settings import Settings

SEEDS = 5


def main(train: Path, unseen: Path) -> None:
    cache = Settings().cache_dir
    encoder = OfflineEncoder(prepare(cache / "models", None, DEFAULT_SLOTS), cache / "encodings")
    everything, asked = read_queries(train), read_queries(unseen)
    experts = experts_of(everything)
    truth = labels_of(asked, experts)
    features = encoder.encode([query.messages for query in asked])
    print("examples  accuracy  recall  false routes  calibration error  fit (s)   mean of seeds")
    for limit in (10, 25, None):
        rows = []
        for seed in range(SEEDS if limit else 1):
            queries = limit_per_expert(everything, limit, seed)
            data = encode_training(queries, encoder, lambda done, of: None)
            start = time.perf_counter()
            with threadpool_limits(FIT_THREADS):
                fit = fit_joint(data)
            took = time.perf_counter() - start
            scores = fit.scores(features)
            found = figures(truth, decisions(scores), experts, fit.probabilities(scores))
            shares = (found.accuracy, found.expert_recall, found.false_route_rate, found.ece or 0)
            rows.append([*(100 * share for share in shares), took])
        mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
        cells = "  ".join(f"{m:8.1f} ± {s:3.1f}" for m, s in zip(mean, spread, strict=True))
        print(f"{limit or 'all':>8}  {cells}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
