"""Ternary checkpoints made with transformers' code, in real vLLM engines: all of ours agree with
transformers, a fault never does; and vLLM's own ways of computing change nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from experts.starter import arithmetic_folder
from experts.verification import Verification, compare, judge, own_process
from experts.verification_sides import Ids, Reference, run_reference, run_served
from tests.experts.bitnet_checkpoints import make

pytestmark = pytest.mark.e2e

TOKENS = 16
ROUNDING = 2.0**-23
Tensors = dict[str, torch.Tensor]
QUIET = Console(quiet=True)

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"linear_class": "bitlinear", "tie": True},
    "qwen2": {"linear_class": "autobitlinear"},
    "qwen3": {"linear_class": "autobitlinear", "use_rms_norm": True},
    "mistral": {"mode": "online"},
    "bitnet": {"linear_class": "bitlinear", "use_rms_norm": True},
}
"""One of each architecture; all 32 combinations pass too, which takes minutes."""


@dataclass(frozen=True)
class Sides:
    """A process for transformers and one for vLLM, for all tests: both take long to start."""

    reference: Executor
    served: Executor

    def compare(self, folder: Path) -> Verification:
        return compare(folder, TOKENS, self.reference, self.served, QUIET)


@pytest.fixture(scope="module")
def sides() -> Iterator[Sides]:
    with own_process() as reference, own_process() as served:
        yield Sides(reference, served)


@pytest.mark.parametrize("architecture", VARIANTS)
def test_transformers_and_vllm_agree(sides: Sides, tmp_path: Path, architecture: str) -> None:
    make(tmp_path / "model", architecture, **VARIANTS[architecture])
    result = sides.compare(tmp_path / "model")
    assert result.passed, result
    assert result.layers == 14
    assert result.layer_difference < 1e-5


def test_the_shipped_expert_agrees(sides: Sides) -> None:
    result = sides.compare(arithmetic_folder() / "checkpoint")
    assert result.passed, result
    assert result.same_texts == result.texts


def double_a_scale(tensors: Tensors) -> None:
    tensors["model.layers.1.self_attn.k_proj.weight_scale"] *= 2


def swap_keys_and_values(tensors: Tensors) -> None:
    for kind in ("weight", "weight_scale"):
        names = [f"model.layers.0.self_attn.{part}_proj.{kind}" for part in "kv"]
        tensors[names[0]], tensors[names[1]] = tensors[names[1]], tensors[names[0]]


def forget_a_norm_within_a_layer(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.up_proj.rms_norm.weight"].fill_(1)


def forget_a_norm_between_layers(tensors: Tensors) -> None:
    tensors["model.layers.1.self_attn.attn_sub_norm.weight"].fill_(1)


def forget_the_last_norm(tensors: Tensors) -> None:
    tensors["model.norm.weight"].fill_(1)


FAULTS: list[Callable[[Tensors], None]] = [
    double_a_scale,
    swap_keys_and_values,
    forget_a_norm_within_a_layer,
    forget_a_norm_between_layers,
    forget_the_last_norm,
]


@pytest.fixture(scope="module")
def sound(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    """A sound checkpoint and what transformers makes of it."""
    folder = tmp_path_factory.mktemp("sound") / "model"
    make(folder, "bitnet", linear_class="autobitlinear", use_rms_norm=True)
    run = sides.reference.submit(run_reference, folder, prompts(), TOKENS, ROUNDING)
    return folder, run.result()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails(
    sides: Sides, sound: tuple[Path, Reference], tmp_path: Path, fault: Callable[[Tensors], None]
) -> None:
    folder, theirs = sound
    shutil.copytree(folder, tmp_path / "faulty")
    tensors = load_file(tmp_path / "faulty" / "model.safetensors")
    fault(tensors)
    save_file(tensors, tmp_path / "faulty" / "model.safetensors", metadata={"format": "pt"})
    texts = [text.ids for text in theirs.texts]
    ours = sides.served.submit(
        run_served, tmp_path / "faulty", prompts(), texts, theirs.layers, TOKENS, "float32"
    ).result()
    assert not judge("", "float32", theirs, ours, TOKENS).passed


def prompts() -> list[Ids]:
    random = np.random.default_rng(0)
    return [tuple(random.integers(8, 700, length).tolist()) for length in (40, 33, 50, 7)]


def greedy_texts(folder: Path, **options: Any) -> list[Ids]:
    """Texts after `prompts`, twice: the second time a prefix cache can serve them."""
    from vllm import LLM, SamplingParams
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    settings = {"dtype": "float32", "max_model_len": 256, "generation_config": "vllm"}
    settings |= {"skip_tokenizer_init": True, "enforce_eager": True, "block_size": 32}
    sampling = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, detokenize=False)
    llm = LLM(str(folder), **settings | options)
    asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts()]
    runs = [llm.generate(asked, sampling, use_tqdm=False) for _ in range(2)]
    del llm
    cleanup_dist_env_and_memory()
    return [tuple(answer.outputs[0].token_ids) for run in runs for answer in run]


def test_caching_chunks_and_ranks_change_no_text(
    sides: Sides, sound: tuple[Path, Reference]
) -> None:
    folder, _ = sound
    plain = {"enable_prefix_caching": False, "enable_chunked_prefill": False}
    chunks = {"max_num_batched_tokens": 16, "max_num_seqs": 8}
    expected = sides.served.submit(greedy_texts, folder, **plain).result()
    assert sides.served.submit(greedy_texts, folder).result() == expected
    assert sides.served.submit(greedy_texts, folder, **chunks).result() == expected
    with own_process() as two_ranks:  # vLLM's workers are processes of their own
        split = two_ranks.submit(greedy_texts, folder, tensor_parallel_size=2)
        assert split.result() == expected
