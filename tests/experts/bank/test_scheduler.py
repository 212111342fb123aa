"""The TurnScheduler: texts, order, sharing, pauses, figures; on a fake engine."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experts.errors import ExpertsError
from tests.experts.bank.fake_engine import (
    BLOCK,
    CONFIG,
    LONGEST,
    TURN,
    Ask,
    Bank,
    Engine,
    make_request,
    run,
    text,
)

pytest.importorskip("vllm")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes engines whose scheduler's clock is theirs."""
    from experts.vllm_plugin.bank import scheduler

    monkeypatch.setenv(scheduler.TURN_SECONDS, str(TURN))

    def make(bank: Bank) -> Engine:
        made = Engine(model, bank)
        monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: made.now))
        return made

    return make


asks = st.lists(
    st.builds(
        Ask,
        expert=st.one_of(st.none(), st.integers(1, 6)),
        prompt=st.lists(st.integers(0, 3), min_size=1, max_size=20).map(tuple),
        tokens=st.integers(1, 20),
        comes=st.integers(0, 40),
        aborted=st.one_of(st.none(), st.none(), st.none(), st.integers(0, 100)),
    ),
    min_size=1,
    max_size=20,
)
pauses = st.one_of(
    st.just({}),
    st.builds(
        lambda begin, length, state: {begin: state, begin + length: "UNPAUSED"},
        st.integers(0, 40),
        st.integers(1, 30),
        st.sampled_from(["PAUSED_NEW", "PAUSED_ALL"]),
    ),
)
banks = st.builds(
    Bank,
    places=st.integers(1, 3),
    rows=st.integers(1, 8),
    blocks=st.integers(LONGEST // BLOCK + 1, 60),
    budget=st.integers(8, 32),
    depth=st.integers(1, 2),
    pauses=pauses,
)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(bank=banks, asks=asks)
def test_any_bank_answers_anything(engine: Any, bank: Bank, asks: list[Ask]) -> None:
    made = engine(bank)
    run(made, asks)
    for number, ask in enumerate(asks):
        written, whole = made.texts[str(number)], text(ask)
        if ask.aborted is None:
            assert written == whole
        else:
            assert written == whole[: len(written)]
    if not bank.pauses:
        experts = len({ask.expert for ask in asks} - {None})
        places = min(bank.places, bank.rows)
        turns = math.ceil(max(experts - places, 0) / places)
        figures = made.scheduler.turns.figures(made.now)
        assert figures.longest_seconds <= turns * (TURN + 1)
        assert figures.waiting == 0


def one_for_each(count: int, tokens: int = 20) -> list[Ask]:
    """A request for each expert, all at once."""
    return [Ask(expert, tuple(range(expert, expert + 12)), tokens, 0) for expert in range(1, count)]


def first_tokens(engine: Engine, asks: list[Ask]) -> list[int]:
    """The step of each expert's first token, with nothing finished before the last of them."""
    for number, ask in enumerate(asks):
        engine.add(str(number), ask)
    first: dict[int | None, int] = {}
    while len(first) < len({ask.expert for ask in asks}) and engine.now < 300:
        engine.step()
        for number, ask in enumerate(asks):
            if engine.texts[str(number)]:
                first.setdefault(ask.expert, engine.now)
            assert len(engine.texts[str(number)]) < ask.tokens
    return list(first.values())


@pytest.mark.parametrize(
    ("bank", "preempted"),
    [
        (Bank(), False),
        (Bank(depth=2), False),
        (Bank(rows=2), True),
        (Bank(rows=1), True),  # and so only one place
        (Bank(blocks=13), True),
        (Bank(blocks=13, depth=2), True),
    ],
    ids=["room", "room, async", "two rows", "one row", "few blocks", "few blocks, async"],
)
def test_each_begins_within_two_rounds(engine: Any, bank: Bank, preempted: bool) -> None:
    made = engine(bank)
    steps = first_tokens(made, one_for_each(7))
    assert max(steps) <= 2 * 6 / min(bank.places, bank.rows) * (TURN + 1)
    assert (made.preempted > 0) == preempted


@pytest.mark.parametrize("bank", [Bank(), Bank(depth=2), Bank(blocks=25)])
def test_many_requests_do_not_keep_another_expert_out(engine: Any, bank: Bank) -> None:
    made = engine(bank)
    asks = [ask for ask in one_for_each(7) for _ in range(20)]
    steps = first_tokens(made, asks)
    assert max(steps) <= 3 * (TURN + 1) + TURN


def test_experts_with_a_place_share_the_rows(engine: Any) -> None:
    made = engine(Bank(places=2, rows=8, budget=200))
    one, other = one_for_each(3)
    for number, ask in enumerate([one] * 20 + [other] * 20):
        made.add(str(number), ask)
    for _ in range(2):
        made.step()
    assert sorted(made.planned, key=int) == ["0", "1", "2", "3", "20", "21", "22", "23"]


def test_what_is_held_back_computes_nothing_twice(engine: Any) -> None:
    made, asks, computed = engine(Bank()), one_for_each(7), 0
    for number, ask in enumerate(asks):
        made.add(str(number), ask)
    while made.scheduler.has_unfinished_requests():
        made.step()
        computed += sum(made.planned.values())
    assert made.scheduler.turns.figures(made.now).taken > 6
    assert computed == sum(len(ask.prompt) + ask.tokens - 1 for ask in asks)


def test_those_whose_turn_comes_last_give_way_first(engine: Any) -> None:
    made = engine(Bank(places=1, rows=3))
    for number, ask in enumerate(one_for_each(5)):
        made.add(str(number), ask)
    for _ in range(3 * TURN + 1):
        made.step()
    assert made.texts["3"]
    assert [request.request_id for request in made.scheduler.running] == ["0", "1", "3"]


def test_more_requests_of_one_expert_take_no_blocks_away(engine: Any) -> None:
    made = engine(Bank(places=1, blocks=13, budget=64))
    asks = [Ask(min(n, 2), tuple(range(n, n + 12)), 20, 0) for n in range(1, 5)]
    for number, ask in enumerate(asks):
        made.add(str(number), ask)
    for _ in range(2 * TURN):
        made.step()
    assert [len(made.texts[str(n)]) for n in range(4)] == [TURN, TURN, TURN, 0]
    assert made.preempted == 0


def test_one_without_an_expert_needs_no_turn(engine: Any) -> None:
    made = engine(Bank(places=1))
    asks = [*one_for_each(4), Ask(None, (5, 6), 15, 0)]
    for number, ask in enumerate(asks):
        made.add(str(number), ask)
    for _ in range(17):
        made.step()
    assert made.texts["3"] == text(asks[3])


def test_a_grammar_that_is_compiled_takes_no_place(engine: Any) -> None:
    from vllm.v1.request import RequestStatus

    made = engine(Bank(places=1, rows=1))
    made.scheduler.structured_output_manager = SimpleNamespace(accept_tokens=lambda *_: True)
    asks = [Ask(1, (1, 2), 20, 0), Ask(2, (3, 4), 20, 0)]
    request = make_request("0", asks[0])
    request.structured_output_request = grammar = SimpleNamespace(grammar=None)
    request.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    made.texts["0"] = []
    made.scheduler.add_request(request)
    made.add("1", asks[1])
    for _ in range(2 * TURN):
        made.step()
    assert made.scheduler.turns.queue == ()
    assert len(made.texts["1"]) == 2 * TURN
    grammar.grammar = object()
    while made.scheduler.has_unfinished_requests():
        made.step()
    assert [made.texts["0"], made.texts["1"]] == [text(ask) for ask in asks]
    assert made.preempted > 0


def test_pauses(engine: Any) -> None:
    made = engine(Bank(places=1, rows=2))
    asks = one_for_each(6, tokens=10)
    for number, ask in enumerate(asks):
        made.add(str(number), ask)
    for _ in range(TURN + 2):
        made.step()
    running = [request.request_id for request in made.scheduler.running]
    assert running == ["0", "1"]
    made.pause("PAUSED_ALL")
    before, changes = made.texts["1"].copy(), made.scheduler.turns.figures(0).changes
    for _ in range(TURN + 2):
        made.step()
    made.abort("4")
    made.step()  # vLLM plans this one even though it is paused: the abort must be told
    assert made.texts["1"] == before
    assert made.scheduler.turns.figures(0).changes == changes
    assert len(made.scheduler.running) == 2
    made.pause("PAUSED_NEW")
    while made.scheduler.has_unfinished_requests():
        made.step()
        assert {1, 2}.issuperset(made.scheduler.turns.queue)
    assert [made.texts[str(n)] for n in range(4)] == [text(asks[0]), text(asks[1]), [], []]
    assert made.preempted == 0
    made.pause("UNPAUSED")
    while made.scheduler.has_unfinished_requests():
        made.step()
    assert [made.texts[str(n)] for n in range(4)] == [text(ask) for ask in asks[:4]]


def test_the_front_end_is_told_the_figures(engine: Any) -> None:
    from vllm.v1.metrics.stats import SchedulerStats

    from experts.vllm_plugin.bank.scheduler import figures_of

    made = engine(Bank())
    for number, ask in enumerate(one_for_each(7)):
        made.add(str(number), ask)
    for _ in range(TURN + 1):
        made.step()
    stats = made.scheduler.make_stats()
    assert figures_of(stats) == made.scheduler.turns.figures(made.now)
    assert (figures_of(stats).changes, figures_of(stats).waiting) == (4, 4)
    assert (stats.num_running_reqs, stats.num_waiting_reqs) == (4, 0)
    assert stats.num_skipped_waiting_reqs == 2  # vLLM's word for: not for lack of room
    assert not any(stats.num_kv_fetch_reqs_by_stage.values())
    assert figures_of(SchedulerStats()) is None


@pytest.mark.parametrize("seconds", ["", "soon", "0", "-1", "nan", "inf"])
def test_nonsense_for_a_turn_is_refused(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from experts.vllm_plugin.bank.scheduler import TURN_SECONDS, turn_seconds

    monkeypatch.setenv(TURN_SECONDS, seconds)
    with pytest.raises(ExpertsError, match=f"{TURN_SECONDS} is '{seconds}'"):
        turn_seconds()
    monkeypatch.delenv(TURN_SECONDS)
    assert turn_seconds() == 1
