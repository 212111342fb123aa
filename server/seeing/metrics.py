"""Prometheus metrics: what happened, counted, and how things are at the moment of the scrape.

Each class has the metrics of one kind of happening. The table in deploy/OBSERVABILITY.md lists
them; a test keeps it true.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import get_args

from prometheus_client import CollectorRegistry, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from server.relay.legs import AUTO
from server.seeing.happenings import BreakerChanged, Hedged, Retried
from server.seeing.instruments import (
    FIRST_TOKEN_BUCKETS,
    REQUEST_BUCKETS,
    TOKEN_BUCKETS,
    Instruments,
    States,
)
from server.seeing.observe import (
    Answered,
    Happening,
    LegEnded,
    LegStarted,
    RequestEnded,
    RequestStarted,
)
from server.seeing.sums import Family, Sum, families
from server.seeing.traffic import Traffic, traffic_in
from server.workers.registration import Progress
from server.workers.worker import State

STATES = ("registering", "not started", *get_args(State))


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, states: States) -> None:
        self.registry = CollectorRegistry()
        self._instruments = make = Instruments(self.registry, states)
        self._http, self._answers, self._legs = _Http(make), _Answers(make), _Legs(make)
        self._failures, self._registrations = _Failures(make), _Registrations(make)
        self._replicas, self._present = _Replicas(make), _Present(states)
        self.registry.register(self._present)
        about = Info("trivium", "The version that runs", registry=self.registry)
        about.info({"version": version("trivium")})
        ProcessCollector(registry=self.registry)

    def notice(self, happening: Happening) -> None:
        """The observer."""
        match happening:
            case RequestStarted():
                self._answers.started(happening)
            case LegStarted():
                self._present.legs[happening.model] += 1
                self._failures.leg_started(happening)
            case LegEnded():
                self._present.legs[happening.model] -= 1
                self._legs.ended(happening)
            case RequestEnded():
                self._answers.ended(happening)
            case Answered():
                self._http.answered(happening)
            case Retried() | Hedged() | BreakerChanged():
                self._replicas.told(happening)

    def registration(self, progress: Progress) -> None:
        """Told of every step of every registration."""
        self._registrations.step(progress)

    def families(self) -> list[Family]:
        """All metrics, to be added to those of another process."""
        self._instruments.forget_removed()
        return families(self.registry)

    def expose(self, accept: str, others: Iterable[Family] = ()) -> tuple[bytes, str]:
        """All metrics, with those of other processes added, in the text format that the header
        `accept` asks for, and its name."""
        encode, content_type = choose_encoder(accept)
        return encode(self._total(others)), content_type

    def traffic(self, others: Iterable[Family] = ()) -> Traffic:
        """What each model had to do, in this process and others."""
        return traffic_in(self._total(others).collect())

    def _total(self, others: Iterable[Family]) -> Sum:
        total = Sum(keep=self._instruments.is_present)
        total.add(self.families())
        total.add(others)
        return total


class _Http:
    """HTTP requests, answered by a model or not."""

    def __init__(self, make: Instruments) -> None:
        self._asked = make.asked
        self._requests = make.counter(
            "requests",
            "HTTP requests; status 499: the client left before the end",
            *("endpoint", "model", "status"),
        )
        self._seconds = make.histogram(
            "request_duration_seconds",
            "From a HTTP request to the last byte of its answer",
            REQUEST_BUCKETS,
            "endpoint",
        )

    def answered(self, answered: Answered) -> None:
        endpoint, model = answered.endpoint or "other", self._asked(answered.model)
        self._requests.labels(endpoint, model, answered.status).inc()
        self._seconds.labels(endpoint).observe(answered.seconds)


class _Answers:
    """Answers of models, whole."""

    def __init__(self, make: Instruments) -> None:
        self._make = make
        self._in_flight = make.gauge("requests_in_flight", "Answers that models are writing")
        self._outcomes = make.counter(
            "answers",
            "Answers of models: finished, failed, or aborted because the client left",
            *("model", "outcome"),
        )
        self._outcomes.labels(AUTO, "failed")  # from 0 on, as registrations are
        self._background = make.counter(
            "background_calls",
            "Answers that chat frontends wanted for themselves, e.g. titles; kept at the meta LLM",
            *("frontend", "task"),
        )
        self._first_token = make.histogram(
            "time_to_first_token_seconds",
            "From a request to the first token of its answer, by the model that wrote that",
            FIRST_TOKEN_BUCKETS,
            "model",
        )
        self._prompt = make.total("prompt_tokens", "Tokens of prompts, of every leg")
        self._cached = make.total(
            "cached_prompt_tokens", "Tokens of prompts that a worker's prefix cache had"
        )

    def started(self, request: RequestStarted) -> None:
        self._in_flight.inc()
        if (call := request.background) is not None:
            self._background.labels(call.frontend, call.task).inc()

    def ended(self, ended: RequestEnded) -> None:
        self._in_flight.dec()
        self._outcomes.labels(self._make.asked(ended.request.model), ended.outcome).inc()
        self._prompt.inc(ended.usage.prompt_tokens)
        self._cached.inc(ended.usage.cached_tokens or 0)
        if (first := ended.first) is not None and first.first_ms is not None:
            seconds = first.first_ms / 1000
            self._first_token.labels(self._make.label(first.model)).observe(seconds)


class _Legs:
    """Legs: who wrote, how much and how fast, and handoffs."""

    def __init__(self, make: Instruments) -> None:
        self._label = make.label
        self._outcomes = make.counter(
            "legs", "Legs: finished, handoff, failed or aborted", *("model", "outcome")
        )
        self._tokens = make.counter(
            "generation_tokens", "Tokens written, by the model that wrote them", "model"
        )
        self._per_token = make.histogram(
            "time_per_output_token_seconds",
            "Mean time between the tokens of a leg, one value a leg",
            TOKEN_BUCKETS,
            "model",
        )
        self._handoffs = make.counter(
            "handoffs",
            "Answers handed to the expert, at their start or in their middle",
            *("expert", "position"),
        )
        self._handoff_seconds = make.histogram(
            "handoff_seconds",
            "From the expert token to the expert's first token",
            FIRST_TOKEN_BUCKETS,
            "expert",
        )

    def ended(self, leg: LegEnded) -> None:
        if (segment := leg.segment) is None:
            return
        model, first = self._label(leg.model), segment.first_ms
        self._outcomes.labels(model, segment.outcome).inc()
        self._tokens.labels(model).inc(segment.tokens)
        if first is not None and segment.tokens > 1:
            seconds = (segment.end_ms - first) / 1000
            self._per_token.labels(model).observe(seconds / (segment.tokens - 1))
        if segment.token_id is not None:
            self._handoffs.labels(model, "middle" if segment.start else "start").inc()
            if first is not None:
                self._handoff_seconds.labels(model).observe((first - segment.start_ms) / 1000)


class _Failures:
    """Legs that failed and were made up for; the client does not notice."""

    def __init__(self, make: Instruments) -> None:
        self._label = make.label
        self._fallbacks = make.counter(
            "fallbacks",
            "Legs that failed before their first token; another was asked instead",
            *("model", "reason"),
        )
        self._recoveries = make.counter(
            "recoveries",
            "Legs that failed after their first token; the text was continued elsewhere",
            *("model", "reason"),
        )

    def leg_started(self, leg: LegStarted) -> None:
        if (failed := leg.instead_of) is not None:
            counter = self._fallbacks if failed.first_ms is None else self._recoveries
            counter.labels(self._label(failed.model), failed.error_type).inc()


class _Replicas:
    """What the pool does about replicas that are slow, fail, or keep failing."""

    def __init__(self, make: Instruments) -> None:
        self._label = make.label
        self._retries = make.counter(
            "retries",
            "Replicas that failed before their first token; the next one was asked",
            *("model", "reason"),
        )
        self._hedges = make.counter(
            "hedges",
            "Second replicas asked because the first was slow to begin; won: they were first",
            *("model", "won"),
        )
        self._breakers = make.counter(
            "breaker_changes", "Breakers of workers that went open, half_open or closed", "state"
        )

    def told(self, happening: Retried | Hedged | BreakerChanged) -> None:
        match happening:
            case Retried():
                self._retries.labels(self._label(happening.model), happening.reason).inc()
            case Hedged():
                won = "yes" if happening.won else "no"
                self._hedges.labels(self._label(happening.model), won).inc()
            case BreakerChanged():
                self._breakers.labels(happening.state).inc()


class _Registrations:
    """Experts that come."""

    def __init__(self, make: Instruments) -> None:
        self._outcomes = make.counter(
            "registrations", "Registrations of experts that ended: done, failed", "outcome"
        )
        self._running = make.gauge(
            "registrations_running", "Registrations of experts that wait or run"
        )
        self._names: set[str] = set()
        for outcome in ("done", "failed"):
            self._outcomes.labels(outcome)  # from 0 on: the first failure is an increase

    def step(self, progress: Progress) -> None:
        if progress.state == "running":
            self._names.add(progress.name)
        else:
            self._names.discard(progress.name)
            self._outcomes.labels(progress.state).inc()
        self._running.set(len(self._names))


class _Present:
    """Collector of what is so at the moment of the scrape, for the models that there are then."""

    def __init__(self, states: States) -> None:
        self._states = states
        self.legs = Tally[str]()
        """Legs in flight, by model."""

    def collect(self) -> Iterator[Metric]:
        workers = GaugeMetricFamily(
            "trivium_worker_state",
            "1 for the state that the model's worker is in, 0 for the others",
            labels=("worker", "state"),
        )
        legs = GaugeMetricFamily(
            "trivium_legs_in_flight", "Requests at the model's worker", labels=("model",)
        )
        for name, told in self._states().items():
            state = told.partition(":")[0]
            for each in dict.fromkeys((*STATES, state)):
                workers.add_metric((name, each), float(each == state))
            legs.add_metric((name,), self.legs[name])
        yield workers
        yield legs
