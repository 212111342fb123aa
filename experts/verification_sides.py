"""The two sides of a verification, each run in a process of its own: transformers' BitNet code,
and ours in vLLM. Both compute on the same token ids, in one dtype."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from experts.errors import ExpertsError

if TYPE_CHECKING:
    from torch import Tensor

Ids = tuple[int, ...]
Floats = npt.NDArray[np.float32]
LAYER_TOKENS = 8
"""How many tokens go through each layer alone."""
TOP = 64
"""How many of vLLM's largest logits are compared at each position."""


class VerificationError(ExpertsError):
    """A checkpoint that one of the sides cannot load."""


@dataclass(frozen=True)
class ReferenceText:
    """One prompt in transformers.

    Attributes:
        ids: the prompt and the greedy text after it.
        logits: `[positions, vocabulary]`, after each of `ids`.
        nudged: likewise, with every ternary layer's input changed by about one rounding error.
    """

    ids: Ids
    logits: Floats
    nudged: Floats


@dataclass(frozen=True)
class LayerRun:
    """One ternary layer in transformers: `x` `[LAYER_TOKENS, in]`, `y` `[LAYER_TOKENS, out]`."""

    x: Floats
    y: Floats


@dataclass(frozen=True)
class Reference:
    """All of transformers' side. `layers` has every ternary layer by its name."""

    texts: list[ReferenceText]
    layers: dict[str, LayerRun]


@dataclass(frozen=True)
class ServedText:
    """One prompt in vLLM.

    Attributes:
        text: greedy text after the prompt alone, token by token with the KV cache.
        tokens: `[positions, TOP]`, the tokens of the largest logits after each of the
            reference's ids but the last.
        logits: `[positions, TOP]`, those logits.
    """

    text: Ids
    tokens: npt.NDArray[np.int64]
    logits: Floats


@dataclass(frozen=True)
class Served:
    """All of vLLM's side. `layers` maps the name of every layer that is ternary there to its
    largest relative difference from transformers, given the same input."""

    texts: list[ServedText]
    layers: dict[str, float]


def run_reference(folder: Path, prompts: list[Ids], tokens: int, rounding: float) -> Reference:
    """Greedy text of `tokens` tokens, all logits, all layers, in float32. `rounding` is the
    relative size of a rounding error in the other side's dtype. Raises VerificationError."""
    import torch
    from transformers import AutoModelForCausalLM

    torch._dynamo.config.disable = True  # compiling costs more than it saves here
    with _errors_as("transformers"):
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False
        ).eval()
    with torch.inference_mode():
        ids = [_greedy(model, prompt, tokens) for prompt in prompts]
        exact = [_all_logits(model, text) for text in ids]
        nudged = _with_nudges(model, rounding, lambda: [_all_logits(model, text) for text in ids])
        layers = _layer_runs(model, ids[0][:LAYER_TOKENS])
    return Reference([ReferenceText(*row) for row in zip(ids, exact, nudged, strict=True)], layers)


def run_served(
    folder: Path,
    prompts: list[Ids],
    texts: list[Ids],
    layers: dict[str, LayerRun],
    tokens: int,
    dtype: str,
) -> Served:
    """Greedy text after `prompts`, logits after each of `texts`, each of `layers` alone. Raises
    VerificationError, or the ExpertsError of our plugin."""
    from vllm import LLM, SamplingParams
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    common = {"temperature": 0.0, "ignore_eos": True, "detokenize": False}
    scored = SamplingParams(max_tokens=1, prompt_logprobs=TOP, flat_logprobs=True, **common)
    greedy = SamplingParams(max_tokens=tokens, **common)
    try:
        with _errors_as("vLLM"):
            llm = LLM(
                str(folder),
                dtype=dtype,
                max_model_len=max(map(len, texts)) + 1,
                max_logprobs=TOP,
                logprobs_mode="raw_logits",
                generation_config="vllm",
                skip_tokenizer_init=True,
                enforce_eager=True,
                use_tqdm_on_load=False,
            )
        scores = llm.generate(_as_prompts(texts), scored, use_tqdm=False)
        answers = llm.generate(_as_prompts(prompts), greedy, use_tqdm=False)
        (differences,) = llm.apply_model(partial(_layer_differences, layers=layers))
    finally:
        llm = None
        cleanup_dist_env_and_memory()
    served = [
        ServedText(tuple(answer.outputs[0].token_ids), *_top(score.prompt_logprobs, len(text) - 1))
        for answer, score, text in zip(answers, scores, texts, strict=True)
    ]
    return Served(served, differences)


def prepare_process(log: str) -> None:
    """Before a side runs in this process: output to the file `log`, vLLM as verification needs
    it."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "VLLM_PLUGINS": "trivium_experts",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: its errors come whole
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@contextmanager
def _errors_as(side: str) -> Iterator[None]:
    """Turn any error but our own into a VerificationError of one line."""
    try:
        yield
    except ExpertsError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise VerificationError(
            f"{side} cannot load the checkpoint: {type(error).__name__}: {lines[0]}"
        ) from None


def _greedy(model: Any, prompt: Ids, tokens: int) -> Ids:
    """The prompt and the `tokens` likeliest tokens after it, also past the end-of-turn token."""
    import torch

    ids = list(prompt)
    step, cache = torch.tensor([ids]), None
    for _ in range(tokens):
        output = model(step, past_key_values=cache, use_cache=True)
        ids.append(int(output.logits[0, -1].argmax()))
        step, cache = torch.tensor([ids[-1:]]), output.past_key_values
    return tuple(ids)


def _all_logits(model: Any, ids: Ids) -> Floats:
    import torch

    logits: Floats = model(torch.tensor([ids])).logits[0].float().numpy()
    return logits


def _with_nudges(model: Any, rounding: float, run: Callable[[], Any]) -> Any:
    """`run()` while the input of every ternary layer is changed by random relative errors."""
    import torch
    from transformers.integrations.bitnet import AutoBitLinear, BitLinear

    generator = torch.Generator().manual_seed(0)

    def nudge(layer: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        noise = torch.randn(inputs[0].shape, generator=generator)
        return (inputs[0] * (1 + rounding * noise), *inputs[1:])

    layers = [m for m in model.modules() if isinstance(m, (AutoBitLinear, BitLinear))]
    hooks = [layer.register_forward_pre_hook(nudge) for layer in layers]
    try:
        return run()
    finally:
        for hook in hooks:
            hook.remove()


def _layer_runs(model: Any, ids: Ids) -> dict[str, LayerRun]:
    """Input and output of every ternary layer while `ids` go through the model."""
    import torch
    from transformers.integrations.bitnet import AutoBitLinear, BitLinear

    runs: dict[str, LayerRun] = {}

    def keep(name: str, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        runs[name] = LayerRun(inputs[0][0].numpy(), output[0].numpy())

    hooks = [
        layer.register_forward_hook(partial(keep, name))
        for name, layer in model.named_modules()
        if isinstance(layer, (AutoBitLinear, BitLinear))
    ]
    try:
        model(torch.tensor([ids]))
    finally:
        for hook in hooks:
            hook.remove()
    return runs


def _layer_differences(model: Any, layers: dict[str, LayerRun]) -> dict[str, float]:
    """The layers of a model in vLLM on the inputs of `layers`: for each, the largest relative
    difference of a token's output (root mean squares)."""
    import torch

    from experts.vllm_plugin.linear import BitNetLinearMethod

    differences = {}
    for layer in model.modules():
        method = getattr(layer, "quant_method", None)
        if not isinstance(method, BitNetLinearMethod):
            continue
        runs = {name: layers[name] for name in method.config.part_names(layer.prefix)}
        x = torch.from_numpy(next(iter(runs.values())).x)
        y = method.apply(layer, x.to(layer.gamma.device, layer.params_dtype), layer.bias)
        sizes = [run.y.shape[-1] for run in runs.values()]
        parts = torch.split(y.float().cpu(), sizes, dim=-1)
        for (name, run), part in zip(runs.items(), parts, strict=True):
            expected = torch.from_numpy(run.y)
            error = (part - expected).square().mean(-1) / expected.square().mean(-1)
            differences[name] = float(error.sqrt().max())
    return differences


def _as_prompts(texts: list[Ids]) -> list[dict[str, list[int]]]:
    return [{"prompt_token_ids": list(ids)} for ids in texts]


def _top(scores: Any, positions: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """vLLM's `FlatLogprobs` of a prompt as arrays: at each position but the first, the prompt's
    own token comes first and the `TOP` largest follow."""
    tokens = np.array(scores.token_ids).reshape(positions, -1)[:, 1:]
    logits = np.array(scores.logprobs, np.float32).reshape(positions, -1)[:, 1:]
    return tokens, logits
