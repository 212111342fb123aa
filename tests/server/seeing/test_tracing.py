"""Traces: spans as an exporter gets them, and the context that the workers get."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from tests.fakes import ExpertToken, FakeWorker, in_turn, refuses, says
from tests.server.conftest import ARITHMETIC, World, request, serving_world, until

CALL = ExpertToken(ARITHMETIC)
CHAT = "/v1/chat/completions"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


@dataclass
class Traced:
    """A world whose spans are kept."""

    world: World
    exporter: InMemorySpanExporter

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        (found,) = self.spans(name)
        return found

    @property
    def names(self) -> list[str]:
        return sorted(span.name for span in self.exporter.get_finished_spans())


@asynccontextmanager
async def tracing() -> AsyncIterator[Traced]:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with serving_world(provider=provider) as world:
        yield Traced(world, exporter)


def parent_of(span: ReadableSpan) -> str | None:
    return format_span_id(span.parent.span_id) if span.parent else None


def id_of(span: ReadableSpan) -> str:
    return format_span_id(span.context.span_id)


def trace_of(span: ReadableSpan) -> str:
    return format_trace_id(span.context.trace_id)


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def test_a_request_with_a_handoff_is_one_trace_with_the_clients() -> None:
    async with tracing() as site:
        site.world.meta.behave = says("The sum ", "is ", CALL, delay=0.005)
        site.world.arithmetic.behave = says("4", "2", delay=0.005)
        headers = TRACEPARENT | {"x-request-id": "req-1"}
        answer = await site.world.http.post(CHAT, json=request(), headers=headers)
        assert answer.status_code == 200
        await until(lambda: site.spans(f"POST {CHAT}"))
    assert site.names == [f"POST {CHAT}", "expert arithmetic", "handoff", "meta"]
    assert {trace_of(span) for span in site.exporter.get_finished_spans()} == {TRACE}
    server = site.span(f"POST {CHAT}")
    assert parent_of(server) == CALLER
    assert server.kind is SpanKind.SERVER
    about = attributes(server)
    assert about["http.response.status_code"] == 200
    assert about["http.route"] == CHAT
    assert about["trivium.request_id"] == "req-1"
    assert about["gen_ai.usage.input_tokens"] == 20
    assert about["gen_ai.usage.output_tokens"] == 5
    meta, handoff = site.span("meta"), site.span("handoff")
    expert = site.span("expert arithmetic")
    for span in (meta, handoff, expert):
        assert parent_of(span) == id_of(server)
    assert attributes(meta)["trivium.outcome"] == "handoff"
    assert attributes(expert)["gen_ai.usage.output_tokens"] == 3
    assert attributes(handoff)["trivium.character"] == len("The sum is ")
    (first,) = expert.events
    assert first.name == "first token"
    assert handoff.end_time == first.timestamp
    assert handoff.start_time is not None
    assert meta.end_time is not None
    assert abs(handoff.start_time - meta.end_time) < 50e6, "ns: it begins where the meta ends"
    assert expert.start_time is not None
    assert expert.end_time is not None
    assert expert.start_time < first.timestamp < expert.end_time


async def test_each_worker_gets_the_context_of_its_own_leg() -> None:
    async with tracing() as site:
        site.world.meta.behave = says("The sum ", "is ", CALL)
        await site.world.http.post(CHAT, json=request(stream=True), headers=TRACEPARENT)
        await until(lambda: site.spans(f"POST {CHAT}"))
    got = {"meta": site.world.meta, "expert arithmetic": site.world.arithmetic}
    for name, worker in got.items():
        version, trace_id, span_id, flags = sent(worker).split("-")
        assert (version, trace_id, flags) == ("00", TRACE, "01")
        assert span_id == id_of(site.span(name))


def sent(worker: FakeWorker, index: int = 0) -> str:
    """The `traceparent` of a request that `worker` got."""
    headers = {name.lower(): value for name, value in worker.received[index].headers.items()}
    return headers.get("traceparent", "")


async def test_choices_do_not_mix_up_their_legs() -> None:
    async with tracing() as site:
        site.world.meta.behave = in_turn(says(CALL), says("a", delay=0.01), says("b"))
        await site.world.answer(n=3)
        await until(lambda: site.spans(f"POST {CHAT}"))
    assert site.names == [f"POST {CHAT}", "expert arithmetic", "handoff", *["meta"] * 3]
    legs = site.spans("meta")
    assert sorted(attributes(leg)["trivium.choice"] for leg in legs) == [0, 1, 2]  # type: ignore[type-var]
    seen = {sent(site.world.meta, index).split("-")[2] for index in range(3)}
    assert seen == {id_of(leg) for leg in legs}


async def test_without_a_trace_of_the_client_a_new_one_begins() -> None:
    async with tracing() as site:
        for headers in ({}, {"traceparent": "00-nonsense-01"}, {"tracestate": "a=b"}):
            await site.world.http.post(CHAT, json=request(), headers=headers)
        await until(lambda: len(site.spans(f"POST {CHAT}")) == 3)
    servers = site.spans(f"POST {CHAT}")
    assert len({trace_of(span) for span in servers}) == 3
    assert {parent_of(span) for span in servers} == {None}
    given = {sent(site.world.meta, index).split("-")[1] for index in range(3)}
    assert given == {trace_of(span) for span in servers}


async def test_a_client_that_is_not_sampled_stays_so() -> None:
    async with tracing() as site:
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
        await site.world.http.post(CHAT, json=request(), headers=headers)
    assert site.names == []
    assert sent(site.world.meta).endswith("-00")


async def test_recoveries_are_events_and_failed_legs_errors() -> None:
    async with tracing() as site:
        site.world.meta.behave = in_turn(says("Well, ", CALL), says("so."))
        site.world.arithmetic.behave = refuses(500, "boom")
        await site.world.answer()
        await until(lambda: site.spans(f"POST {CHAT}"))
    failed = site.span("expert arithmetic")
    assert failed.status.status_code is StatusCode.ERROR
    assert attributes(failed)["error.type"] == "UpstreamFailed"
    server = site.span(f"POST {CHAT}")
    (recovery,) = server.events
    assert (recovery.name, dict(recovery.attributes or {})) == (
        "recovery",
        {
            "trivium.failed": "arithmetic",
            "trivium.continued_by": "meta",
            "error.type": "UpstreamFailed",
        },
    )
    assert server.status.status_code is StatusCode.UNSET


async def test_an_answer_that_fails_is_an_error() -> None:
    async with tracing() as site:
        site.world.meta.behave = refuses(500, "boom")
        assert (await site.world.ask()).status_code == 502
        await until(lambda: site.spans(f"POST {CHAT}"))
    server = site.span(f"POST {CHAT}")
    assert server.status.status_code is StatusCode.ERROR
    assert attributes(server)["trivium.outcome"] == "failed"


async def test_spans_of_an_answer_that_is_left_end() -> None:
    async with tracing() as site:
        site.world.meta.behave = says(*["word "] * 1000, delay=0.005)
        ask = site.world.http.stream("POST", CHAT, json=request(stream=True))
        async with ask as left:
            await anext(left.aiter_lines())
        await until(lambda: site.spans(f"POST {CHAT}"))
    assert attributes(site.span("meta"))["trivium.outcome"] == "aborted"
    assert attributes(site.span(f"POST {CHAT}"))["http.response.status_code"] == 499


async def test_only_the_api_is_traced() -> None:
    async with tracing() as site:
        for path in ("/health", "/metrics", "/", "/v1/models"):
            await site.world.http.get(path)
    assert site.names == ["GET /v1/models"]


async def test_without_an_exporter_the_context_is_passed_through(world: World) -> None:
    headers = TRACEPARENT | {"tracestate": "vendor=secret", "baggage": "user=secret"}
    await world.http.post(CHAT, json=request(), headers=headers)
    assert sent(world.meta) == TRACEPARENT["traceparent"]
    assert "secret" not in str(world.meta.received[0].headers)
    await world.answer()
    assert sent(world.meta, 1) == ""


@pytest.mark.parametrize("bad", ["00-" + "0" * 32 + f"-{CALLER}-01", "x" * 5000, "00-1-2-3"])
async def test_a_malformed_context_goes_no_further(world: World, bad: str) -> None:
    answer = await world.http.post(CHAT, json=request(), headers={"traceparent": bad})
    assert answer.status_code == 200
    assert sent(world.meta) == ""
