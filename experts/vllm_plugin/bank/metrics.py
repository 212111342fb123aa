"""What `/metrics` of a bank shows beside vLLM's own figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.prometheus import get_prometheus_registry

from experts.vllm_plugin.bank.scheduler import figures_of
from experts.vllm_plugin.bank.turns import Figures

if TYPE_CHECKING:
    from experts.vllm_plugin.bank.endpoints import BankView


class BankMetrics(Collector):
    """The bank as Prometheus reads it; `view` is set just before it does."""

    def __init__(self) -> None:
        self.view: BankView | None = None
        get_prometheus_registry().register(self)

    def collect(self) -> Iterator[Metric]:
        view = self.view
        if view is None:
            return
        resident = sum(expert.resident for expert in view.experts)
        yield _gauge("places", "Experts that can be resident at once", view.places)
        yield _gauge("experts_registered", "Experts that requests can name", len(view.experts))
        yield _gauge("experts_resident", "Experts that a step can compute with", resident)
        yield _counter("swaps", "Experts brought into a place", view.swaps)
        yield _counter("swap_seconds", "Time that swaps took", view.swap_seconds)
        memory = GaugeMetricFamily(
            "trivium_bank_expert_bytes", "Host memory of an expert", labels=["expert"]
        )
        tokens = CounterMetricFamily(
            "trivium_bank_tokens", "Tokens computed for an expert", labels=["expert"]
        )
        for expert in view.experts:
            memory.add_metric([expert.name], expert.bytes)
            tokens.add_metric([expert.name], expert.tokens)
        yield memory
        yield tokens


class TurnMetrics(StatLoggerBase, Collector):  # type: ignore[misc]  # untyped to mypy
    """How experts wait for their turns: the `vllm.stat_logger_plugins` entry point, which vLLM
    gives its scheduler's figures after each step."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self._figures: Figures | None = None
        if engine_index == 0:
            get_prometheus_registry().register(self)

    def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
        """Keep the latest figures."""
        if scheduler_stats is not None:
            self._figures = figures_of(scheduler_stats) or self._figures

    def log_engine_initialized(self) -> None:
        """Nothing: vLLM's own loggers say it."""

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        if figures is None:
            return
        yield _counter("turns", "Places given to experts", figures.changes)
        yield _counter("turns_taken", "Places taken from wanted experts", figures.taken)
        yield _counter("waits", "Waits of experts for a place that have ended", figures.waits)
        yield _counter("wait_seconds", "Time that these waits took", figures.waited_seconds)
        yield _gauge("longest_wait_seconds", "The longest of them", figures.longest_seconds)
        yield _gauge("experts_waiting", "Experts that wait for a place now", figures.waiting)
        yield _gauge("oldest_wait_seconds", "The longest wait under way", figures.oldest_seconds)


class RefreshMetrics:
    """ASGI middleware: asks the bank how it is before `/metrics` is answered."""

    def __init__(self, app: Any, state: Any) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/") == "/metrics":
            self._state.trivium_bank_metrics.view = await self._state.trivium_bank.view()
        await self._app(scope, receive, send)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"trivium_bank_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"trivium_bank_{name}", text, value=value)
