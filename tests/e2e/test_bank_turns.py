"""Experts of a bank that take turns write what each writes alone, and none of them starves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experts.verification import own_process
from experts.verification_sides import Ids
from tests.e2e.test_bank import Asked, make_experts, open_bank, texts_alone

pytestmark = pytest.mark.e2e

EXPERTS = 6
RESIDENT = 2
EACH = 3
"""Requests for each expert."""
TOKENS = 80
ROWS = 4
"""Fewer than the requests of the resident experts."""
BLOCKS = 17
"""One that vLLM keeps for itself, and twice the eight of 32 tokens that one request may need."""


@dataclass
class Run:
    """What a bank wrote, and when. Steps are numbered; a text's are those of each of its tokens.

    Attributes:
        most_experts: in one step.
        most_rows: running requests and those held back, after any step.
        preempted: how often any request was.
        changes: of place, as the front end was told; -1 without turns.
        unread: requests that the front end's counts left out or counted twice, over all steps.
    """

    texts: list[Ids]
    steps: list[list[int]]
    most_experts: int = 0
    most_rows: int = 0
    preempted: int = 0
    changes: int = -1
    unread: int = 0

    def first_token(self, expert: int) -> int:
        """The step of the first token of any of its requests."""
        return min(steps[0] for steps in self.steps[expert::EXPERTS])

    def last_token(self, expert: int) -> int:
        return max(steps[-1] for steps in self.steps[expert::EXPERTS])


@pytest.fixture(scope="module")
def process() -> Iterator[Executor]:
    with own_process() as executor:
        yield executor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("experts")
    make_experts(made, "llama", EXPERTS)
    return made


@pytest.fixture(scope="module")
def alone(process: Executor, folder: Path) -> list[Ids]:
    return process.submit(texts_alone, folder, asked(), TOKENS).result()


def asked() -> Asked:
    """The first request of each expert, the second of each, and so on."""
    random = np.random.default_rng(1)
    lengths = [random.choice([3, 40, 130]) for _ in range(EXPERTS * EACH)]
    return [
        (n % EXPERTS, tuple(random.integers(8, 700, length).tolist()))
        for n, length in enumerate(lengths)
    ]


def run_a_bank(folder: Path, turn: float | None, **options: Any) -> Run:
    """Ask a bank everything at once, the first expert first: with turns of `turn` seconds, or by
    vLLM's own scheduler."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    if turn is not None:
        os.environ["TRIVIUM_BANK_TURN_SECONDS"] = str(turn)
        options["scheduler_cls"] = "experts.vllm_plugin.bank.scheduler.TurnScheduler"
    options = {"disable_log_stats": False, "max_num_seqs": 32} | options
    llm = open_bank(folder, RESIDENT, EXPERTS, **options)
    run = ask_all(llm.llm_engine, folder)
    del llm
    cleanup_dist_env_and_memory()
    return run


def ask_all(engine: Any, folder: Path) -> Run:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    questions = asked()
    sampling = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
    for expert, number in sorted((expert, n) for n, (expert, _) in enumerate(questions)):
        engine.add_request(
            str(number),
            {"prompt_token_ids": list(questions[number][1])},
            sampling,
            lora_request=LoRARequest(f"e{expert}", expert + 1, str(folder / f"a{expert}")),
        )
    run = Run([()] * len(questions), [[] for _ in questions])
    watch(engine, run)
    step = 0
    while engine.has_unfinished_requests():
        step += 1
        for output in engine.step():
            number = int(output.request_id.split("-")[0])
            written = tuple(output.outputs[0].token_ids)
            run.steps[number] += [step] * (len(written) - len(run.texts[number]))
            run.texts[number] = written
    return run


def watch(engine: Any, run: Run) -> None:
    """Let `run` note what the scheduler plans, and what the front end's loggers are told."""
    from experts.vllm_plugin.bank.scheduler import figures_of

    scheduler = engine.engine_core.engine_core.scheduler
    schedule, preempt = scheduler.schedule, scheduler._preempt_request
    record = engine.logger_manager.record

    def watched_schedule(*args: Any) -> Any:
        planned = schedule(*args)
        requests = [scheduler.requests[name] for name in planned.num_scheduled_tokens]
        experts = {request.lora_request.lora_int_id for request in requests}
        run.most_experts = max(run.most_experts, len(experts))
        run.most_rows = max(run.most_rows, len(scheduler.running))
        run.unread += abs(sum(scheduler.get_request_counts()) - len(scheduler.requests))
        return planned

    def watched_preempt(*args: Any, **named: Any) -> None:
        run.preempted += 1
        preempt(*args, **named)

    def watched_record(scheduler_stats: Any, *args: Any, **named: Any) -> None:
        figures = figures_of(scheduler_stats)
        run.changes = -1 if figures is None else figures.changes
        record(scheduler_stats, *args, **named)

    scheduler.schedule, scheduler._preempt_request = watched_schedule, watched_preempt
    engine.logger_manager.record = watched_record


def check_fair(run: Run) -> None:
    """No more experts in a step than places; each has written before the first has finished."""
    assert run.most_experts == RESIDENT
    assert run.unread == 0
    first = [run.first_token(expert) for expert in range(EXPERTS)]
    last = [run.last_token(expert) for expert in range(EXPERTS)]
    assert max(first) < min(last)
    assert run.changes > EXPERTS


def test_all_write_before_the_first_has_finished(
    process: Executor, folder: Path, alone: list[Ids]
) -> None:
    run = process.submit(run_a_bank, folder, 0.05).result()
    assert run.texts == alone
    assert len(set(alone)) == EXPERTS * EACH
    check_fair(run)
    assert run.preempted == 0
    assert run.most_rows == EXPERTS * EACH


def test_without_turns_the_last_starve(process: Executor, folder: Path, alone: list[Ids]) -> None:
    run = process.submit(run_a_bank, folder, None).result()
    assert run.texts == alone
    assert run.first_token(EXPERTS - 1) > run.last_token(0)
    assert run.changes == -1


def test_held_back_requests_give_up_their_blocks(
    process: Executor, folder: Path, alone: list[Ids]
) -> None:
    run = process.submit(run_a_bank, folder, 0.05, num_gpu_blocks_override=BLOCKS).result()
    assert run.texts == alone
    check_fair(run)
    assert run.preempted > EXPERTS


def test_held_back_requests_give_up_their_rows(
    process: Executor, folder: Path, alone: list[Ids]
) -> None:
    run = process.submit(run_a_bank, folder, 0.05, max_num_seqs=ROWS).result()
    assert run.texts == alone
    check_fair(run)
    assert run.most_rows == ROWS
    assert run.preempted > EXPERTS
