"""The pages of several processes as one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from server.seeing.sums import LASTING, Sum, families


def process(*answered: str, running: int = 0, seconds: float = 1.0) -> CollectorRegistry:
    """The metrics of a process that answered with these models."""
    registry = CollectorRegistry()
    Info("trivium", "Version", registry=registry).info({"version": "1"})
    counter = Counter("answers", "Answers", ["model"], registry=registry)
    histogram = Histogram("seconds", "Time", buckets=(1.0, 5.0), registry=registry)
    Gauge("running", "Running", registry=registry).set(running)
    for model in answered:
        counter.labels(model).inc()
        histogram.observe(seconds)
    return registry


def page(total: Sum) -> list[str]:
    lines = generate_latest(total).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and "_created" not in line]


def test_counters_histograms_and_gauges_add_up() -> None:
    total = Sum()
    total.add(families(process("meta", "sums", running=1)))
    total.add(families(process("meta", "stars", running=2, seconds=3.0)))
    assert page(total) == [
        'trivium_info{version="1"} 1.0',
        'answers_total{model="meta"} 2.0',
        'answers_total{model="sums"} 1.0',
        'answers_total{model="stars"} 1.0',
        'seconds_bucket{le="1.0"} 2.0',
        'seconds_bucket{le="5.0"} 4.0',
        'seconds_bucket{le="+Inf"} 4.0',
        "seconds_count 4.0",
        "seconds_sum 8.0",
        "running 3.0",
    ]


def test_one_process_alone_has_its_own_page() -> None:
    registry, total = process("meta", running=1), Sum()
    total.add(families(registry))
    assert generate_latest(total) == generate_latest(registry)


def test_what_ended_processes_counted_lasts_and_removed_models_do_not() -> None:
    gone = Sum()
    gone.add(f for f in families(process("meta", "sums", running=1)) if f.type in LASTING)
    total = Sum(keep=lambda labels: labels.get("model") != "sums")
    total.add(families(process(running=1)))
    total.add(gone.families())
    lines = page(total)
    assert 'answers_total{model="meta"} 1.0' in lines
    assert "running 1.0" in lines
    assert not [line for line in lines if "sums" in line]


def test_the_oldest_creation_counts() -> None:
    total = Sum()
    for registry in (first := process("meta"), second := process("meta")):
        total.add(families(registry))
    created = [r.get_sample_value("answers_created", {"model": "meta"}) for r in (first, second)]
    shown = [s[2] for f in total.families() for s in f.samples if s[0] == "answers_created"]
    assert shown == [min(value for value in created if value is not None)]
