"""The TurnScheduler on vLLM's own queues and KV cache manager, with a model that needs no weights.

The model writes down which token of which request stands where in the KV cache, so that a block
which is given away too early, or a row that is lost, shows in what it reads later.
"""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experts.errors import ExpertsError

pytest.importorskip("vllm")

BLOCK = 4
TURN = 3
LONGEST = 40
"""Tokens of a prompt and its text."""
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "vocab_size": 1000,
    "max_position_embeddings": LONGEST,
}


@dataclass(frozen=True)
class Ask:
    """A request: when it comes and, if it is given up, when; both in steps."""

    expert: int | None
    prompt: tuple[int, ...]
    tokens: int
    comes: int
    aborted: int | None = None


@dataclass(frozen=True)
class Bank:
    places: int = 2
    rows: int = 8
    blocks: int = 200
    budget: int = 16
    depth: int = 1
    """Steps planned before the first one's output is there: 2 with asynchronous scheduling."""
    pauses: dict[int, str] = field(default_factory=dict)
    """At which step the state of vLLM's pause changes, and to which."""


def next_token(expert: int | None, tokens: list[int]) -> int:
    return (31 * sum(i * t for i, t in enumerate(tokens, 1)) + 7 * (expert or 0)) % 1000


def text(ask: Ask) -> list[int]:
    tokens = list(ask.prompt)
    for _ in range(ask.tokens):
        tokens.append(next_token(ask.expert, tokens))
    return tokens[len(ask.prompt) :]


class Runner:
    """What vLLM's model runners (V1) do with a plan, and a KV cache."""

    def __init__(self) -> None:
        self.cache: dict[tuple[int, int], tuple[int | None, int, int]] = {}
        self.tokens: dict[str, list[int]] = {}
        self.blocks: dict[str, list[int]] = {}
        self.experts: dict[str, int | None] = {}

    def run(self, plan: Any) -> Any:
        from vllm.v1.outputs import ModelRunnerOutput

        computed = {}
        for new in plan.scheduled_new_reqs:
            self.tokens[new.req_id] = list(new.prompt_token_ids)
            self.blocks[new.req_id] = list(new.block_ids[0])
            self.experts[new.req_id] = new.lora_request and new.lora_request.lora_int_id
            computed[new.req_id] = new.num_computed_tokens
        old = plan.scheduled_cached_reqs
        for name, blocks, done in zip(
            old.req_ids, old.new_block_ids, old.num_computed_tokens, strict=True
        ):
            kept = [] if name in old.resumed_req_ids else self.blocks[name]
            self.blocks[name] = kept + list(blocks[0] if blocks else [])
            computed[name] = done
        names = list(plan.num_scheduled_tokens)
        sampled = [self._step(n, computed[n], plan.num_scheduled_tokens[n]) for n in names]
        return ModelRunnerOutput(names, {n: i for i, n in enumerate(names)}, sampled)

    def _step(self, name: str, done: int, new: int) -> list[int]:
        tokens, expert = self.tokens[name], self.experts[name]
        for place in range(done + new):
            where = self.blocks[name][place // BLOCK], place % BLOCK
            if place >= done:
                self.cache[where] = (expert, place, tokens[place])
            assert self.cache[where] == (expert, place, tokens[place])
        if done + new < len(tokens):
            return []
        tokens.append(next_token(expert, tokens))
        return tokens[-1:]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def make_scheduler(model: Path, bank: Bank) -> Any:
    import torch
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.config.lora import LoRAConfig
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    from experts.vllm_plugin.bank.scheduler import TurnScheduler

    config = VllmConfig(
        model_config=ModelConfig(str(model), skip_tokenizer_init=True, dtype="float32"),
        cache_config=CacheConfig(block_size=BLOCK, enable_prefix_caching=True),
        scheduler_config=SchedulerConfig(
            max_num_seqs=bank.rows,
            max_num_batched_tokens=bank.budget,
            max_model_len=LONGEST,
            enable_chunked_prefill=True,
            is_encoder_decoder=False,
        ),
        lora_config=LoRAConfig(max_lora_rank=1, max_loras=bank.places),
    )
    config.cache_config.num_gpu_blocks = bank.blocks
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
    cache = KVCacheConfig(bank.blocks, [], [KVCacheGroupSpec(["layer"], spec)])
    return TurnScheduler(
        config, cache, StructuredOutputManager(config), block_size=BLOCK, log_stats=True
    )


def make_request(name: str, ask: Ask) -> Any:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    init_none_hash(sha256)
    return Request(
        name,
        list(ask.prompt),
        SamplingParams(max_tokens=ask.tokens, ignore_eos=True, temperature=0),
        None,
        lora_request=ask.expert and LoRARequest(f"e{ask.expert}", ask.expert, "nowhere"),
        block_hasher=get_request_block_hasher(BLOCK, sha256),
    )


class Engine:
    """An engine's loop over a TurnScheduler; a step takes a second, a turn `TURN`."""

    def __init__(self, model: Path, bank: Bank) -> None:
        self.bank = bank
        self.now = 0
        self.scheduler = make_scheduler(model, bank)
        self.runner = Runner()
        self.under_way: deque[Any] = deque()
        self.texts: dict[str, list[int]] = {}
        self.preempted = 0
        preempt = self.scheduler._preempt_request

        def count(*args: Any, **named: Any) -> None:
            self.preempted += 1
            preempt(*args, **named)

        self.scheduler._preempt_request = count

    def add(self, name: str, ask: Ask) -> None:
        self.texts[name] = []
        self.scheduler.add_request(make_request(name, ask))

    def abort(self, name: str) -> None:
        from vllm.v1.request import RequestStatus

        self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    def pause(self, state: str) -> None:
        from vllm.v1.core.sched.interface import PauseState

        self.scheduler.set_pause_state(PauseState[state])

    def step(self) -> None:
        self.now += 1
        if self.scheduler.has_requests():
            plan = self.scheduler.schedule()
            self.check(plan)
            self.under_way.append((plan, self.runner.run(plan)))
        if len(self.under_way) == self.bank.depth or (
            self.under_way and not self.scheduler.has_requests()
        ):
            for outputs in self.scheduler.update_from_output(*self.under_way.popleft()).values():
                for output in outputs.outputs:
                    self.texts[output.request_id] += output.new_token_ids

    def check(self, plan: Any) -> None:
        scheduler = self.scheduler
        running = {request.request_id for request in scheduler.running}
        experts = {self.expert(name) for name in plan.num_scheduled_tokens} - {None}
        assert plan.num_scheduled_tokens.keys() <= running
        assert len(running) == len(scheduler.running) <= self.bank.rows
        assert len(experts) <= self.bank.places
        assert sum(scheduler.get_request_counts()) == len(scheduler.requests)
        assert scheduler.deferred_waiting <= set(scheduler.waiting)
        self.planned = plan.num_scheduled_tokens

    def expert(self, name: str) -> int | None:
        request = self.scheduler.requests[name].lora_request
        return request and request.lora_int_id


def run(engine: Engine, asks: list[Ask], steps: int = 3000) -> None:
    """Ask, step until all is done, and check what is left behind: nothing."""
    scheduler = engine.scheduler
    while engine.now < steps:
        if engine.now in engine.bank.pauses:
            engine.pause(engine.bank.pauses[engine.now])
        for number, ask in enumerate(asks):
            if ask.comes == engine.now:
                engine.add(str(number), ask)
            if ask.aborted == engine.now:
                engine.abort(str(number))
        engine.step()
        done = not scheduler.requests and not engine.under_way and not scheduler.has_requests()
        if done and engine.now > max(ask.comes for ask in asks):
            break
    assert not scheduler.requests
    assert not scheduler.running
    assert not scheduler.waiting
    assert not scheduler.deferred_waiting
    pool = scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == engine.bank.blocks - 1  # vLLM keeps one for itself


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
