"""A bank in a real vLLM engine writes what each expert writes alone, whoever comes and goes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from experts.verification import own_process
from experts.verification_sides import Ids
from experts.vllm_plugin.bank.adapters import make_adapter, make_base
from tests.experts.bitnet_checkpoints import make

pytestmark = pytest.mark.e2e

EXPERTS = 5
RESIDENT = 3
TOKENS = 20
ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 256,
    "generation_config": "vllm",
    "skip_tokenizer_init": True,
    "enforce_eager": True,
    "block_size": 32,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 64,
}
"""Prompts longer than a step's tokens are prefilled in chunks; prefix caching is on."""
Asked = list[tuple[int, Ids]]
"""Number of an expert, and a prompt for it."""


@pytest.fixture(scope="module")
def process() -> Iterator[Executor]:
    with own_process() as executor:
        yield executor


def make_experts(folder: Path, architecture: str, count: int = EXPERTS) -> None:
    """`count` random experts in `folder`/e0, …, their adapters in a0, …, the base in `base`."""
    for number in range(count):
        variant = {"linear_class": "autobitlinear", "use_rms_norm": False}
        make(folder / f"e{number}", architecture, seed=number, **variant)
        make_adapter(folder / f"e{number}", folder / f"a{number}")
    make_base(folder / "e0", folder / "base")


def questions(count: int) -> Asked:
    random = np.random.default_rng(1)
    return [
        (n % EXPERTS, tuple(random.integers(8, 700, random.choice([3, 40, 130])).tolist()))
        for n in range(count)
    ]


def texts_alone(folder: Path, asked: Asked, tokens: int = TOKENS) -> list[Ids]:
    """What a worker of its own for each expert writes, at temperature 0."""
    from vllm import LLM, SamplingParams
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    texts: list[Ids] = [()] * len(asked)
    for number in sorted({expert for expert, _ in asked}):
        llm = LLM(str(folder / f"e{number}"), **ENGINE)
        places = [place for place, (expert, _) in enumerate(asked) if expert == number]
        prompts = [{"prompt_token_ids": list(asked[place][1])} for place in places]
        answers = llm.generate(prompts, sampling, use_tqdm=False)
        for place, answer in zip(places, answers, strict=True):
            texts[place] = tuple(answer.outputs[0].token_ids)
        del llm
        cleanup_dist_env_and_memory()
    return texts


def open_bank(
    folder: Path, resident: int = RESIDENT, registered: int = EXPERTS, **options: Any
) -> Any:
    """The engine of a bank; `options` are vLLM's, and go before those of ENGINE."""
    from vllm import LLM

    bank = {
        "load_format": "dummy",
        "enable_lora": True,
        "max_loras": resident,
        "max_cpu_loras": registered,
        "max_lora_rank": 1,
        "lora_target_modules": ["expert_selector"],
    }
    return LLM(str(folder / "base"), **bank | ENGINE | options)


def ask(llm: Any, folder: Path, asked: Asked) -> list[Any]:
    """vLLM's answers of a mixed batch."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    sampling = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
    prompts = [{"prompt_token_ids": list(prompt)} for _, prompt in asked]
    chosen = [LoRARequest(f"e{n}", n + 1, str(folder / f"a{n}")) for n, _ in asked]
    answers: list[Any] = llm.generate(prompts, sampling, lora_request=chosen, use_tqdm=False)
    return answers


def ids(answers: list[Any]) -> list[Ids]:
    return [tuple(answer.outputs[0].token_ids) for answer in answers]


def texts_of_a_bank(folder: Path, asked: Asked) -> list[list[Ids]]:
    """The texts of a bank: at first, and again after an expert has been removed and added."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    llm = open_bank(folder)
    first = ids(ask(llm, folder, asked))
    llm.llm_engine.remove_lora(2)
    again = ids(ask(llm, folder, asked))
    del llm
    cleanup_dist_env_and_memory()
    return [first, again]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "bitnet"])
def test_a_mixed_batch_is_what_each_writes_alone(
    process: Executor, tmp_path: Path, architecture: str
) -> None:
    make_experts(tmp_path, architecture)
    asked = questions(20)
    expected = process.submit(texts_alone, tmp_path, asked).result()
    first, again = process.submit(texts_of_a_bank, tmp_path, asked).result()
    assert first == expected
    assert again == expected
    assert len(set(expected)) > EXPERTS


def prompt_logprobs(folder: Path, asked: Asked, together: bool) -> list[list[float]]:
    """Log-probabilities of prompts' tokens: in one batch of a bank, or each asked alone."""
    from vllm import SamplingParams
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
    from vllm.lora.request import LoRARequest

    sampling = SamplingParams(temperature=0, max_tokens=2, prompt_logprobs=0, detokenize=False)
    llm = open_bank(folder)
    found = []
    for batch in [asked] if together else [[one] for one in asked]:
        prompts = [{"prompt_token_ids": list(prompt)} for _, prompt in batch]
        chosen = [LoRARequest(f"e{n}", n + 1, str(folder / f"a{n}")) for n, _ in batch]
        for answer in llm.generate(prompts, sampling, lora_request=chosen, use_tqdm=False):
            rows = zip(answer.prompt_token_ids[1:], answer.prompt_logprobs[1:], strict=True)
            found.append([row[token].logprob for token, row in rows])
    del llm
    cleanup_dist_env_and_memory()
    return found


def test_a_prompt_is_judged_by_its_own_expert(process: Executor, tmp_path: Path) -> None:
    make_experts(tmp_path, "llama", 3)
    prompt = questions(12)[8][1]
    asked: Asked = [(0, prompt[:9]), (1, prompt), (2, prompt[:40]), (0, prompt)]
    alone = process.submit(prompt_logprobs, tmp_path, asked, False).result()
    together = process.submit(prompt_logprobs, tmp_path, asked, True).result()
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
    assert abs(alone[1][0] - alone[3][0]) > 1e-2, "the experts' heads differ"


def same_prompt_to_all(folder: Path) -> list[tuple[int, Ids]]:
    """Cached tokens and text of one prompt, asked of experts 0, 1 and 0 again."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    prompt = questions(12)[8][1] * 2
    llm = open_bank(folder)
    found = []
    for expert in (0, 1, 0):
        (answer,) = ask(llm, folder, [(expert, prompt[:120])])
        found.append((answer.num_cached_tokens, tuple(answer.outputs[0].token_ids)))
    del llm
    cleanup_dist_env_and_memory()
    return found


def test_experts_share_no_cache(process: Executor, tmp_path: Path) -> None:
    make_experts(tmp_path, "llama", 2)
    first, other, again = process.submit(same_prompt_to_all, tmp_path).result()
    assert first[0] == other[0] == 0
    assert again[0] >= 32
    assert first[1] == again[1] != other[1]


def add_a_damaged_one(folder: Path) -> tuple[str, list[Ids], list[Ids], set[int]]:
    """The error of adding expert 1 while 0 is there; texts of 0 before, of 0 and 2 after; the
    adapters known."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
    from vllm.lora.request import LoRARequest

    llm = open_bank(folder)
    before = ids(ask(llm, folder, [(0, PROMPT)]))
    error = ""
    try:
        llm.llm_engine.add_lora(LoRARequest("e1", 2, str(folder / "a1")))
    except Exception as caught:
        error = str(caught)
    after = ids(ask(llm, folder, [(0, PROMPT)])) + ids(ask(llm, folder, [(2, PROMPT)]))
    known = llm.llm_engine.list_loras()
    del llm
    cleanup_dist_env_and_memory()
    return error, before, after, known


PROMPT: Ids = (9, 8, 7)


def test_a_damaged_expert_is_refused_and_the_others_serve_on(
    process: Executor, tmp_path: Path
) -> None:
    make_experts(tmp_path, "llama", 3)
    file = tmp_path / "e1" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"][:] = 0xFF
    save_file(tensors, file, metadata={"format": "pt"})
    error, before, after, known = process.submit(add_a_damaged_one, tmp_path).result()
    assert "model.layers.1.mlp.down_proj.weight" in error
    assert known == {1, 3}
    assert after[0] == before[0]
    asked: Asked = [(0, PROMPT), (2, PROMPT)]
    assert after == process.submit(texts_alone, tmp_path, asked).result()
