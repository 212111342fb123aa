"""Making Prometheus metrics whose label values are bounded: the models that are served here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from server.relay.legs import AUTO, META

OTHER = "other"
"""Stands for every model that is not served here."""
MODEL_LABELS = ("model", "expert")

# As vLLM's buckets, so that the two can be laid over each other, and finer at the lower end.
FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0),
)
TOKEN_BUCKETS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 10.0),
)
REQUEST_BUCKETS = (
    *(0.005, 0.025, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0),
    *(50.0, 60.0, 120.0, 240.0, 480.0),
)

States = Callable[[], Mapping[str, str]]
"""How "meta" and every expert are: a state, and perhaps ": " and a reason."""


Metric = TypeVar("Metric", Counter, Histogram)


class Family(Generic[Metric]):
    """A metric by its labels: each series is looked up once."""

    def __init__(self, metric: Metric, names: Sequence[str]) -> None:
        self._metric: Metric = metric
        self._of_models = [name for name in names if name in MODEL_LABELS]
        self._series: dict[tuple[object, ...], Metric] = {}

    def labels(self, *values: object) -> Metric:
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = self._metric.labels(*values)
        return series

    def forget(self, model: str) -> None:
        """Take out the series of a model."""
        for label in self._of_models:
            self._metric.remove_by_labels({label: model})
        self._series.clear()


class Instruments:
    """Makes the metrics of one registry, and labels for models. Times are in seconds."""

    def __init__(self, registry: CollectorRegistry, states: States) -> None:
        self._registry, self._states = registry, states
        self._known = frozenset[str]()
        self._families: list[Family[Counter] | Family[Histogram]] = []

    def total(self, name: str, text: str) -> Counter:
        """A counter without labels."""
        return Counter(f"trivium_{name}", text, registry=self._registry)

    def counter(self, name: str, text: str, *labels: str) -> Family[Counter]:
        metric = Counter(f"trivium_{name}", text, labels, registry=self._registry)
        family = Family(metric, labels)
        self._families.append(family)
        return family

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Family[Histogram]:
        name = f"trivium_{name}"
        metric = Histogram(name, text, labels, buckets=buckets, registry=self._registry)
        family = Family(metric, labels)
        self._families.append(family)
        return family

    def gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"trivium_{name}", text, registry=self._registry)

    def label(self, name: str) -> str:
        """The label for "meta" or an expert's name."""
        if name not in self._known:
            self._known |= self._served()
        return name if name in self._known else OTHER

    def asked(self, model: str | None) -> str:
        """The label for a model as clients name it; "" for None."""
        if model is None or model == AUTO:
            return model or ""
        prefix, _, name = model.partition("/")
        return self.label(name) if prefix == AUTO else OTHER

    def forget_removed(self) -> None:
        """Take out the series of experts that are no longer registered."""
        served = self._served()
        for name in self._known - served:
            for family in self._families:
                family.forget(name)
        self._known = served

    def is_present(self, labels: Mapping[str, str]) -> bool:
        """Whether a series is of no model, or of one that was served at the last `forget_removed`;
        another process may have it longer."""
        known = (*self._known, "", AUTO, OTHER)
        return all(labels.get(label, "") in known for label in MODEL_LABELS)

    def _served(self) -> frozenset[str]:
        return frozenset(self._states()) | {META}
