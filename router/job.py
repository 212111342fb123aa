"""Jobs: fit and evaluate a head with transformers. `python -m router.job fit|evaluate …`.

The `trivium router` commands run this as a process of its own, so that torch stays out of theirs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from router.dataset import DataError, Query, limit_per_expert, read_queries
from router.evaluate import figures
from router.expand import ExpandError
from router.head_file import HeadFacts, HeadFileError, read_head, write_head
from router.joint import JointFit, decisions, fit_joint
from router.offline import OfflineEncoder, OfflineError
from router.prepare import PrepareError, prepare
from router.report import compare, print_figures, write_picture
from router.solver import FIT_THREADS
from router.training import encode_training, experts_of, labels_of
from router.vocabulary import DEFAULT_SLOTS


def fit(args: argparse.Namespace) -> None:
    queries = limit_per_expert(read_queries(args.data), args.limit_per_expert, args.seed)
    encoder = _encoder(args)
    with _Bar("encoding") as bar:
        data = encode_training(queries, encoder, bar.advance)
    start = time.perf_counter()
    rate = args.false_route_rate
    with threadpool_limits(FIT_THREADS):
        found = fit_joint(data) if rate is None else fit_joint(data, rate, rate)
    took = time.perf_counter() - start
    experts = experts_of(queries)
    training = {
        "data": str(args.data.resolve()),
        "sha256": _digest(args.data),
        "limit_per_expert": args.limit_per_expert,
        "seed": args.seed,
    }
    facts = HeadFacts(experts, encoder.fingerprint, found.margin, training)
    write_head(args.out, found, facts)
    print(f"{args.out}: {len(experts)} experts from {len(queries)} queries, fit {took:.1f} s")


def evaluate(args: argparse.Namespace) -> None:
    queries = read_queries(args.data)
    head, facts = read_head(args.head)
    encoder = _encoder(args)
    if encoder.fingerprint != facts.fingerprint:
        raise HeadFileError(
            f"{args.head} was fitted for another meta LLM or other features"
            f" ({facts.fingerprint}, this one is {encoder.fingerprint}); fit it again"
        )
    unknown = set(experts_of(queries)) - set(facts.experts)
    if unknown:
        raise DataError(f"{args.data} names experts that the head lacks: {', '.join(unknown)}")
    with _Bar("encoding") as bar:
        features = encoder.encode([query.messages for query in queries], bar.advance)
    truth, scores = labels_of(queries, facts.experts), head.scores(features)
    result = figures(truth, decisions(scores), facts.experts, head.probabilities(scores))
    others = compare(queries, features, facts, encoder, _training_queries(facts), truth)
    latency = {"decision_us": _decision_time(head, features)}
    print_figures(result, others, latency)
    if args.json is not None:
        report = result.as_dict() | {"latency": latency, "compared": others}
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if args.plot is not None:
        write_picture(result, args.plot)


def _encoder(args: argparse.Namespace) -> OfflineEncoder:
    folder = args.cache / "models"
    default = args.meta == "default"
    checkpoint = prepare(folder, None, DEFAULT_SLOTS) if default else Path(args.meta)
    return OfflineEncoder(checkpoint, args.cache / "encodings")


def _training_queries(facts: HeadFacts) -> list[Query] | None:
    """What the head was fitted on, if that is still there and unchanged."""
    given = facts.training
    try:
        path = Path(given["data"])
        if _digest(path) != given["sha256"]:
            return None
        return limit_per_expert(read_queries(path), given["limit_per_expert"], given["seed"])
    except (KeyError, OSError, DataError):
        return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _decision_time(head: JointFit, features: np.ndarray) -> float:
    """Microseconds that one decision adds to a prefill: scores of one position, the median."""
    times = []
    for row in features[:200]:
        start = time.perf_counter()
        decisions(head.scores(row[None]))
        times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e6)


class _Bar:
    """A progress bar on standard error that appears when there is something to do."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._task: TaskID | None = None
        self._progress = Progress(console=Console(stderr=True), transient=True)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def advance(self, done: int, of: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task(self._what, total=of)
        self._progress.update(self._task, completed=done)

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    fitting, evaluating = commands.add_parser("fit"), commands.add_parser("evaluate")
    for command, run in ((fitting, fit), (evaluating, evaluate)):
        command.set_defaults(run=run)
        command.add_argument("--meta", required=True)
        command.add_argument("--cache", type=Path, required=True)
        command.add_argument("--data", type=Path, required=True)
    fitting.add_argument("--limit-per-expert", type=int)
    fitting.add_argument("--seed", type=int, default=0)
    fitting.add_argument("--false-route-rate", type=float)
    fitting.add_argument("--out", type=Path, required=True)
    evaluating.add_argument("--head", type=Path, required=True)
    evaluating.add_argument("--json", type=Path)
    evaluating.add_argument("--plot", type=Path)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (DataError, HeadFileError, OfflineError, PrepareError, ExpandError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
