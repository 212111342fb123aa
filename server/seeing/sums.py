"""The metrics of several processes, added up to one page.

Counters, histograms and gauges add up sample by sample. What one process says for all stays as the
first has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

ONE_FOR_ALL = frozenset(
    {"trivium", "trivium_worker_state", "process_start_time_seconds", "process_max_fds"}
)
LASTING = ("counter", "histogram")
"""Types of what has happened, which stays true when the process that counted it has ended."""


class Family(msgspec.Struct, frozen=True):
    """A metric with its samples, each a name, labels and a value."""

    name: str
    documentation: str
    type: str
    unit: str
    samples: list[tuple[str, dict[str, str], float]]


def families(collector: Collector) -> list[Family]:
    """What a collector has now."""
    return [
        Family(m.name, m.documentation, m.type, m.unit, [(s[0], s[1], s[2]) for s in m.samples])
        for m in collector.collect()
    ]


class Sum(Collector):
    """Families added to each other."""

    def __init__(self, keep: Callable[[dict[str, str]], bool] = lambda labels: True) -> None:
        """`keep`: whether samples with such labels are in `collect`."""
        self._keep = keep
        self._families: dict[str, Family] = {}
        self._values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}

    def add(self, added: Iterable[Family]) -> None:
        for family in added:
            if family.name in self._families and family.name in ONE_FOR_ALL:
                continue
            self._families.setdefault(family.name, family)
            values = self._values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                key = name, tuple(sorted(labels.items()))
                both = min if name.endswith("_created") else float.__add__
                values[key] = both(values[key], float(value)) if key in values else float(value)

    def families(self) -> list[Family]:
        return families(self)

    def collect(self) -> Iterator[Metric]:
        for name, family in self._families.items():
            metric = Metric(name, family.documentation, family.type, family.unit)
            for (sample, pairs), value in self._values[name].items():
                labels = dict(pairs)
                if self._keep(labels):
                    metric.add_sample(sample, labels, value)
            yield metric
