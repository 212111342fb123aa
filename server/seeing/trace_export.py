"""Where spans go: what the standard environment variables `OTEL_…` say, or nowhere."""

from __future__ import annotations

import logging
import os
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING

from opentelemetry.trace import NoOpTracerProvider, TracerProvider

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

EXPORTER = "OTEL_TRACES_EXPORTER"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

log = logging.getLogger(__name__)


def tracer_provider() -> TracerProvider:
    """A provider that exports as the environment says. It records nothing where no exporter and
    no endpoint is named, or the SDK is not installed.

    The SDK itself reads the sampler, the batches, the resource and the exporter's settings.
    """
    exporters = _exporters()
    if not exporters:
        return NoOpTracerProvider()
    try:
        from opentelemetry.sdk.trace import TracerProvider as SdkProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning(
            "OTEL_… variables ask for traces, but OpenTelemetry's SDK is not installed, so there"
            " are none; `pip install -e '.[otel]'` in Trivium's checkout installs it"
        )
        return NoOpTracerProvider()
    provider = SdkProvider(resource=_resource(), shutdown_on_exit=False)
    for name in exporters:
        found = entry_points(group="opentelemetry_traces_exporter", name=name)
        if not found:
            log.warning("there is no exporter %r for traces; %s names it", name, EXPORTER)
        for entry in found:
            provider.add_span_processor(BatchSpanProcessor(entry.load()()))
    return provider


def _exporters() -> list[str]:
    """Names of entry points."""
    named = os.environ.get(EXPORTER, "")
    if not named and any(os.environ.get(variable) for variable in ENDPOINTS):
        named = "otlp"
    names = [name.strip() for name in named.split(",")]
    return [_otlp() if name == "otlp" else name for name in names if name not in ("", "none")]


def _otlp() -> str:
    chosen = (os.environ[variable] for variable in PROTOCOLS if os.environ.get(variable))
    return "otlp_proto_grpc" if next(chosen, "") == "grpc" else "otlp_proto_http"


def _resource() -> Resource:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours = Resource.create({"service.name": "trivium", "service.version": version("trivium")})
    return ours.merge(OTELResourceDetector().detect())


def shut_down(provider: TracerProvider) -> None:
    """Send what is left, and stop. Blocks; the no-op provider has nothing to do."""
    if (stop := getattr(provider, "shutdown", None)) is not None:
        stop()
