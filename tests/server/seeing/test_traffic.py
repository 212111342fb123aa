"""What the metrics are read as."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from server.seeing.traffic import ModelTraffic, Traffic, traffic_in
from tests.fake_meta import FIRST_ID
from tests.fakes import ExpertToken, says
from tests.server.guarded import site_with


def first_tokens(*seconds: float) -> float | None:
    """The median of the meta LLM's, in ms."""
    registry = CollectorRegistry()
    legs = Counter("trivium_legs", "", ("model", "outcome"), registry=registry)
    legs.labels("meta", "finished").inc()
    times = Histogram(
        "trivium_time_to_first_token_seconds",
        "",
        ("model",),
        buckets=(0.1, 0.2, 0.4),
        registry=registry,
    )
    for value in seconds:
        times.labels("meta").observe(value)
    return traffic_in(registry.collect()).of("meta").first_token_ms


def test_the_median_lies_within_its_bucket() -> None:
    assert first_tokens() is None
    assert first_tokens(0.05, 0.05) == pytest.approx(50)
    assert first_tokens(0.05, 0.15, 0.15, 0.15) == pytest.approx(100 * (1 + 1 / 3))
    assert first_tokens(0.05, 0.15) == pytest.approx(100)
    assert first_tokens(0.05, 0.15, 0.3, 0.3, 0.3) == pytest.approx(200 * (1 + 0.5 / 3))


def test_a_median_beyond_the_last_border_is_that_border() -> None:
    assert first_tokens(0.3, 5, 5, 5) == pytest.approx(400)


def test_without_requests_there_is_none() -> None:
    assert traffic_in(CollectorRegistry().collect()) == Traffic()
    assert Traffic().of("anything") == ModelTraffic()


async def test_the_admin_api_tells_it(tmp_path: Path) -> None:
    async with site_with(tmp_path) as site:
        await site.add()
        site.meta.writer.behave = says("Well, ", ExpertToken(FIRST_ID))
        body = {"model": "trivium", "messages": [{"role": "user", "content": "1 + 1"}]}
        for _ in range(2):
            assert (await site.http.post("/v1/chat/completions", json=body)).status_code == 200
        pinned = body | {"model": "trivium/sums"}
        assert (await site.http.post("/v1/chat/completions", json=pinned)).status_code == 200
        site.expert.behave = says("x", failure="cut")
        await site.http.post("/v1/chat/completions", json=body)
        told = (await site.http.get("/v1/experts")).json()
        assert told["meta"]["state"] == "live"
        assert told["meta"]["routed"] == 3
        assert told["meta"]["traffic"]["handoffs"] == 3
        assert told["meta"]["traffic"]["first_token_ms"] > 0
        sums = (await site.http.get("/v1/experts/sums")).json()["traffic"]
        assert sums == told["data"][0]["traffic"]
        assert (sums["answers"], sums["failures"], sums["handoffs"]) == (4, 1, 3)
        assert sums["first_token_ms"] > 0
