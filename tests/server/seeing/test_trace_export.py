"""Where spans go, by the environment."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import NoOpTracerProvider

from server.seeing.trace_export import shut_down, tracer_provider


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


class Collector(HTTPServer):
    """An OpenTelemetry collector that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, ExportTraceServiceRequest]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_nothing_is_recorded_unless_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(tracer_provider(), NoOpTracerProvider)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert isinstance(tracer_provider(), NoOpTracerProvider)


def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    provider = tracer_provider()
    provider.get_tracer("x").start_span("hello").end()
    shut_down(provider)
    ((path, sent),) = collector.received
    assert path == "/v1/traces"
    (resource,) = sent.resource_spans
    about = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert about["service.name"] == "trivium"
    assert about["deployment.environment"] == "test"
    assert [span.name for span in resource.scope_spans[0].spans] == ["hello"]


def test_the_service_can_be_named(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/here")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    provider = tracer_provider()
    provider.get_tracer("x").start_span("hello").end()
    shut_down(provider)
    ((path, sent),) = collector.received
    assert path == "/here"
    about = {a.key: a.value.string_value for a in sent.resource_spans[0].resource.attributes}
    assert about["service.name"] == "ours"


def test_an_exporter_that_is_not_there_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nothing")
    shut_down(tracer_provider())
    assert "no exporter 'nothing'" in caplog.text


def test_without_the_sdk_a_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    imported = builtins.__import__

    def without_sdk(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry.sdk"):
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_sdk)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    assert isinstance(tracer_provider(), NoOpTracerProvider)
    assert "pip install -e '.[otel]'" in caplog.text
