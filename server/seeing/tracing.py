"""OpenTelemetry spans: the HTTP request, and in it each leg and each handoff.

    POST /v1/chat/completions            continues the client's trace (W3C `traceparent`)
        meta                             the trace goes on at the worker: it gets a `traceparent`
        handoff                          from the expert token to the expert's first token
        expert arithmetic

Without an SDK or an exporter no span is recorded, and the trace context is passed through.
Attributes are those of OpenTelemetry's conventions for HTTP and generative AI, and `trivium.…`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import (
    NoOpTracerProvider,
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from server.relay.events import Segment
from server.relay.legs import META
from server.relay.upstream import leg_headers
from server.seeing.accounts import Account
from server.seeing.logs import harmless
from server.seeing.observe import (
    Happening,
    LegEnded,
    LegStarted,
    RequestEnded,
    RequestStarted,
)
from server.wire import header

TRACEPARENT = "traceparent"
TRACED = "/v1/"
"""Requests to paths that begin so are traced."""

_w3c = TraceContextTextMapPropagator()


@dataclass
class _Request:
    """What is open of one request."""

    parent: Span
    began: int
    """ns of Unix time."""
    legs: dict[int, Span] = field(default_factory=dict)
    """By choice."""

    def at(self, ms: float) -> int:
        return self.began + int(ms * 1e6)


class Tracing:
    """Makes the spans of one application. Requests of which nothing is recorded, and whose clients
    bring no trace to go on with, are passed over."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("trivium")
        self._records = not isinstance(provider, NoOpTracerProvider)
        self._open: dict[RequestStarted, _Request] = {}

    # ------------------------------------------------------------ the HTTP request

    @contextmanager
    def http_request(self, scope: Scope) -> Iterator[Span]:
        """The span of a request, current within."""
        traceparent = header(scope, TRACEPARENT.encode()) or ""
        if not scope["path"].startswith(TRACED) or not (traceparent or self._records):
            yield trace.INVALID_SPAN
            return
        # Of the client's headers this one alone is looked at: `tracestate` and `baggage` hold
        # what it likes, and nothing of that shall reach a worker.
        parent = _w3c.extract({TRACEPARENT: traceparent}, otel.Context())
        span = self._tracer.start_span(scope["method"], parent, SpanKind.SERVER)
        token = otel.attach(trace.set_span_in_context(span, parent))
        try:
            yield span
        finally:
            otel.detach(token)
            span.end()

    def http_answered(
        self, span: Span, scope: Scope, endpoint: str, status: int, used: Account
    ) -> None:
        """Complete the span of a request that is over."""
        if not span.is_recording():
            return
        span.update_name(f"{scope['method']} {endpoint}".strip())
        span.set_attribute("http.request.method", scope["method"])
        span.set_attribute("trivium.request_id", scope["state"]["request_id"])
        span.set_attribute("http.response.status_code", status)
        if endpoint:
            span.set_attribute("http.route", endpoint)
        if used.model is not None:
            span.set_attribute("gen_ai.request.model", harmless(used.model))
            span.set_attribute("gen_ai.usage.input_tokens", used.usage.prompt_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", used.usage.completion_tokens)
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(Status(StatusCode.ERROR))

    # ------------------------------------------------------------ the dispatcher

    def notice(self, happening: Happening) -> None:
        """The observer."""
        match happening:
            case RequestStarted():
                span = trace.get_current_span()
                if self._records or span.get_span_context().is_valid:
                    self._open[happening] = _Request(span, time.time_ns())
            case LegStarted() if opened := self._open.get(happening.request):
                self._leg_started(happening, opened)
            case LegEnded() if opened := self._open.get(happening.request):
                self._leg_ended(happening, opened)
            case RequestEnded() if opened := self._open.pop(happening.request, None):
                _request_ended(happening, opened.parent)

    def _leg_started(self, leg: LegStarted, request: _Request) -> None:
        around = trace.set_span_in_context(request.parent, otel.Context())
        name = leg.model if leg.model == META else f"expert {leg.model}"
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "trivium",
            "gen_ai.request.model": leg.model,
            "trivium.choice": leg.choice,
        }
        span = self._tracer.start_span(name, around, SpanKind.CLIENT, attributes)
        request.legs[leg.choice] = span
        if (failed := leg.instead_of) is not None:
            request.parent.add_event("recovery", _recovery(failed, leg.model))
        headers: dict[str, str] = {}
        _w3c.inject(headers, trace.set_span_in_context(span, otel.Context()))
        leg_headers.set(headers)

    def _leg_ended(self, leg: LegEnded, request: _Request) -> None:
        span, segment = request.legs.pop(leg.choice), leg.segment
        if segment is not None and span.is_recording():
            if segment.token_id is not None:
                self._handoff(segment, request)
            _complete(span, segment, request)
        span.end()

    def _handoff(self, segment: Segment, request: _Request) -> None:
        """From the expert token to the expert's first token, or to where the expert gave up."""
        attributes: dict[str, str | int | float] = {
            "trivium.expert": segment.model,
            "trivium.choice": segment.choice,
            "trivium.character": segment.start,
        }
        if segment.probability is not None:
            attributes["trivium.probability"] = segment.probability
        around = trace.set_span_in_context(request.parent, otel.Context())
        began = request.at(segment.start_ms)
        span = self._tracer.start_span("handoff", around, attributes=attributes, start_time=began)
        span.end(request.at(segment.end_ms if segment.first_ms is None else segment.first_ms))


def _complete(span: Span, segment: Segment, request: _Request) -> None:
    span.set_attribute("gen_ai.usage.output_tokens", segment.tokens)
    span.set_attribute("trivium.outcome", segment.outcome)
    if segment.first_ms is not None:
        span.add_event("first token", timestamp=request.at(segment.first_ms))
    if segment.error_type is not None:
        span.set_attribute("error.type", segment.error_type)
        span.set_status(Status(StatusCode.ERROR))


def _recovery(failed: Segment, by: str) -> dict[str, str]:
    return {
        "trivium.failed": failed.model,
        "trivium.continued_by": by,
        "error.type": failed.error_type or "",
    }


def _request_ended(ended: RequestEnded, span: Span) -> None:
    span.set_attribute("trivium.outcome", ended.outcome)
    if ended.error is not None:
        span.set_attribute("error.type", type(ended.error).__name__)
        span.set_status(Status(StatusCode.ERROR))
