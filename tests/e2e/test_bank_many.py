"""Many experts in few places: a random load is answered right, and nothing grows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from experts.verification import own_process
from experts.verification_sides import Ids
from tests.e2e.test_bank import Asked, ask, ids, make_experts, open_bank, texts_alone

pytestmark = pytest.mark.e2e

REGISTERED, RESIDENT = 32, 4
EACH = 2
"""Prompts for each expert."""
LOADS = 6
REQUESTS = 48
"""Of each load: a random choice of the prompts."""
MB = 1 << 20


@dataclass
class Run:
    """What a bank wrote in each load, its swaps, and the bytes of its process after each load."""

    texts: list[list[Ids]]
    swaps: int
    swap_seconds: float
    resident: int
    memory: list[int]


@pytest.fixture(scope="module")
def process() -> Iterator[Executor]:
    with own_process() as executor:
        yield executor


def prompts() -> Asked:
    random = np.random.default_rng(3)
    lengths = random.choice([3, 40, 100], REGISTERED * EACH)
    return [
        (n % REGISTERED, tuple(random.integers(8, 700, length).tolist()))
        for n, length in enumerate(lengths)
    ]


def loads() -> list[list[int]]:
    """The numbers of the prompts that each load asks, in its order."""
    random = np.random.default_rng(4)
    return [random.integers(0, REGISTERED * EACH, REQUESTS).tolist() for _ in range(LOADS)]


def run_loads(folder: Path) -> Run:
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    turns = "experts.vllm_plugin.bank.scheduler.TurnScheduler"
    llm = open_bank(folder, RESIDENT, REGISTERED, scheduler_cls=turns)
    asked, texts, memory = prompts(), [], []
    for load in loads():
        texts.append(ids(ask(llm, folder, [asked[place] for place in load])))
        memory.append(psutil.Process().memory_info().rss)
    (status,) = llm.apply_model(status_of)
    del llm
    cleanup_dist_env_and_memory()
    resident = sum(expert["resident"] for expert in status["experts"].values())
    return Run(texts, status["swaps"], status["swap_seconds"], resident, memory)


def status_of(model: Any) -> Any:
    return model.bank.status()


def test_a_random_load_of_many_experts_in_few_places(process: Executor, tmp_path: Path) -> None:
    make_experts(tmp_path, "llama", REGISTERED)
    expected = process.submit(texts_alone, tmp_path, prompts()).result()
    run = process.submit(run_loads, tmp_path).result()
    for load, texts in zip(loads(), run.texts, strict=True):
        assert texts == [expected[place] for place in load]
    print(f"{run.swaps} swaps, {run.swap_seconds / run.swaps * 1e3:.2f} ms each; {run.memory}")
    assert run.resident == RESIDENT
    assert run.swaps > REGISTERED
    assert run.memory[-1] - run.memory[1] < 16 * MB, run.memory
