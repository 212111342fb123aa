"""The layers of a bank: each holds what its experts differ in, stacked by slot.

A layer's own parameters hold no expert: they are where a checkpoint is loaded before its tensors
are copied elsewhere (`contents.py`). Stands on the same interfaces of vLLM 0.32 as
`experts/vllm_plugin/linear.py`, and on `layers/vocab_parallel_embedding.py` and
`layers/layernorm.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from experts.kernels import grouped_ternary_linear, ternary_linear
from experts.vllm_plugin.bank.adapters import BankError
from experts.vllm_plugin.bank.step import Step, Steps
from experts.vllm_plugin.linear import BitNetLinearMethod
from experts.vllm_plugin.quantization import BitNetConfig


class BankLinearMethod(BitNetLinearMethod):
    """Ternary layers of several experts: `bank` has `weight` uint8 `[slots, ceil(out/4), in]`,
    `gamma` float32 `[slots, out]` and, where the layer has one, `bias` `[slots, out]`."""

    def __init__(self, config: BitNetConfig, steps: Steps) -> None:
        super().__init__(config)
        self._step = steps.tokens
        if config.norm_eps is not None:
            raise BankError(
                "experts with use_rms_norm cannot be in a bank; give each a worker of its own"
            )

    def process_weights_after_loading(self, layer: Any) -> None:
        """Nothing: experts come later, each through the layer's loader."""

    def contents(self, layer: Any) -> dict[str, Tensor]:
        """What the loader has just put into the layer's own parameters, as `bank` holds it."""
        layer.loader.check_all_loaded()
        sizes = torch.tensor(layer.loader.sizes)
        gamma = layer.weight_scale.data.repeat_interleave(sizes)
        found = {"weight": layer.weight.data.clone(), "gamma": gamma}
        if getattr(layer, "bias", None) is not None:
            bias = layer.bias.data
            found["bias"] = bias * gamma.to(bias.dtype) if self.config.scales_bias else bias.clone()
        return found

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`[tokens, in]` to `[tokens, out]`, each token with its own expert's weights."""
        bank, only = layer.bank, self._step.only
        own = bank.get("bias") if bias is not None else None
        if only is not None:
            chosen = None if own is None else own[only]
            return ternary_linear(x, bank["weight"][only], bank["gamma"][only], chosen)
        return grouped_ternary_linear(x, bank["weight"], bank["gamma"], own, self._step.groups)


class BankEmbeddingMethod(UnquantizedEmbeddingMethod):  # type: ignore[misc]  # untyped to mypy
    """Embeddings and heads: `layer.bank` has `shared` `[vocabulary, hidden]`, of the first expert;
    from the first one that differs on, also `weight` `[slots, vocabulary, hidden]`."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def process_weights_after_loading(self, layer: Any) -> None:
        """Nothing: the matrix is not repacked, since experts are copied into it."""

    def embedding(self, layer: Any, input_: Tensor) -> Tensor:
        """Ids `[tokens]` to `[tokens, hidden]`."""
        stack = layer.bank.get("weight")
        if stack is None:
            return embedding(input_, layer.bank.get("shared", layer.weight))
        step = self._steps.tokens
        if step.only is not None:
            return embedding(input_, stack[step.only])
        return embedding(input_ + step.slots * stack.shape[1], stack.flatten(0, 1))

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Hidden states `[samples, hidden]` to logits `[samples, vocabulary]`."""
        stack = layer.bank.get("weight")
        if stack is None:
            return linear(x, layer.bank.get("shared", layer.weight), bias)
        step = self._steps.samples
        if step.only is not None:
            return linear(x, stack[step.only], bias)
        logits = x.new_empty(x.shape[0], stack.shape[1])
        for slot, rows in step.groups.each():
            logits[rows] = linear(x[rows], stack[slot], bias)
        return logits


def divide_norm(norm: RMSNorm, step: Step) -> None:
    """Let `norm` multiply each token with its own expert's weight; `norm.bank` has `weight`
    `[slots, size]`. vLLM's own code does the rest, and rounds as it does with one weight."""
    norm.pass_weight = norm.pass_weight_add = False

    def multiply(_: nn.Module, __: Any, output: Any) -> Any:
        normal, *rest = output if isinstance(output, tuple) else (output,)
        weight = step.select(norm.bank["weight"])
        if step.only is None:  # a head's norm has heads between tokens and values
            weight = weight.view(weight.shape[0], *[1] * (normal.ndim - 2), -1)
        scaled = (normal.to(weight.dtype) * weight).to(normal.dtype)
        return (scaled, *rest) if rest else scaled

    norm.register_forward_hook(multiply)
