"""vLLM's own scheduler, queues and KV cache manager, with a model that needs no weights.

The model writes down which token of which request stands where in the KV cache, so that a block
which is given away too early, or a row that is lost, shows in what it reads later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
