"""Seeing what happens: puts metrics, traces and the access log into an application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from fastapi import FastAPI, Request
from opentelemetry.trace import TracerProvider
from starlette.responses import Response

from server.edge.auth import METRICS_PATH, TARGETS_PATH
from server.relay.legs import META
from server.seeing.access import Access
from server.seeing.accounts import keep_accounts
from server.seeing.metrics import Metrics
from server.seeing.observe import Observer, fan_out
from server.seeing.sums import Family
from server.seeing.targets import Target, worker_targets
from server.seeing.tracing import Tracing
from server.seeing.traffic import Traffic
from server.services import Services


@dataclass(frozen=True)
class Seeing:
    """What tells of requests; the dispatcher is to be given `observer`."""

    metrics: Metrics
    observer: Observer
    traffic: Callable[[], Awaitable[Traffic]]
    """What each model had to do, in all processes of this server."""


Others = Callable[[], Awaitable[Iterable[Family]]]
"""The metrics of the other processes of this server."""


async def alone() -> Iterable[Family]:
    """There are none."""
    return ()


def install_seeing(app: FastAPI, provider: TracerProvider, others: Others = alone) -> Seeing:
    """Add the middleware and the route; to be called after `install_guard`, so that refused
    requests are seen too, and before `install_edge`. The app must get a `Services` as its state.
    """

    def states() -> Mapping[str, str]:
        services = app.state.services
        assert isinstance(services, Services)
        health = services.status.health()
        return {META: health.meta, **health.experts}

    async def metrics_page(request: Request) -> Response:
        """Prometheus metrics."""
        page, content_type = metrics.expose(request.headers.get("accept", ""), await others())
        return Response(page, headers={"Content-Type": content_type})

    async def traffic() -> Traffic:
        return metrics.traffic(await others())

    async def targets() -> list[Target]:
        """Where the metrics of the live workers are, for Prometheus' HTTP service discovery."""
        return worker_targets(app.state.services.snapshots.current)

    metrics, tracing = Metrics(states), Tracing(provider)
    observer = fan_out(keep_accounts, metrics.notice, tracing.notice)
    app.add_middleware(Access, observer=observer, tracing=tracing)
    app.add_api_route(METRICS_PATH, metrics_page, methods=["GET"], response_class=Response)
    app.add_api_route(TARGETS_PATH, targets, methods=["GET"])
    return Seeing(metrics, observer, traffic)
