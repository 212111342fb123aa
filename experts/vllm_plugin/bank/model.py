"""The models of a bank: vLLM's own classes, whose layers hold several experts.

Touches of vLLM's LoRA code (0.32) that it does not promise to plugins, all here: the manager sets
`model.lora_manager` (`lora/model_manager.py`), calls `set_lora(slot, A, B)` on the selector's
wrapper to activate an adapter, and its wrapper of punica knows each token's slot. For a prompt's
log-probabilities the runner calls `compute_logits` with a view of what `forward` returned.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from experts.vllm_plugin.bank.adapters import SELECTOR, BankError, expert_path
from experts.vllm_plugin.bank.contents import Bank
from experts.vllm_plugin.bank.layers import divide_norm
from experts.vllm_plugin.bank.step import Steps, building
from experts.vllm_plugin.bitnet import BitNetForCausalLM


class BankModel:
    """Mixed in before one of vLLM's causal LMs; started with `--enable-lora`,
    `--lora-target-modules expert_selector` and `--load-format dummy`."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        if vllm_config.lora_config is None:
            raise BankError(
                "a bank is served with --enable-lora --lora-target-modules expert_selector"
                " --load-format dummy"
            )
        steps = Steps()
        with building(steps):
            super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self.steps = steps
        for module in self.modules():  # type: ignore[attr-defined]
            if type(module) is RMSNorm:
                divide_norm(module, steps.tokens)
        self.bank = Bank(self, vllm_config.lora_config.max_loras)
        self.expert_selector = ReplicatedLinear(1, 1, bias=False, prefix=SELECTOR)
        self._adapters: set[int] = set()
        self._hidden: Any = None
        """What `forward` gave last."""

    @property
    def lora_manager(self) -> Any:
        """vLLM's manager of adapters, which sets itself here when it is ready."""
        return self._manager

    @lora_manager.setter
    def lora_manager(self, manager: Any) -> None:
        self._manager = manager
        (self._slots,) = manager.punica_wrapper_mapping.values()
        manager.modules[SELECTOR].set_lora = self._activate
        self.bank.shelf.release_parameters()

    def forward(self, input_ids: Tensor | None, positions: Tensor, *rest: Any, **named: Any) -> Any:
        """As the base class; each token with the weights of its request's expert."""
        slots, rows = self._slots.token_lora_indices, positions.shape[-1]
        self.steps.tokens.begin(slots, rows, self.bank.arrange)
        self.bank.count(self.steps.tokens.groups)
        self._hidden = super().forward(input_ids, positions, *rest, **named)  # type: ignore[misc]
        return self._hidden

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """As the base class; each row with the head of its request's expert: rows are samples, or,
        for the log-probabilities of a prompt, a part of what `forward` gave."""
        first = self._first_row(hidden_states)
        slots = self._slots.sampler_indices
        if first is not None:
            slots = self._slots.token_lora_indices[first:]
        self.steps.samples.begin(slots, hidden_states.shape[0], self.bank.arrange)
        logits: Tensor | None = super().compute_logits(hidden_states)  # type: ignore[misc]
        return logits

    def _first_row(self, rows: Tensor) -> int | None:
        """Which row of what `forward` gave is the first of `rows`, if these are a part of it."""
        if not isinstance(self._hidden, Tensor):
            return None
        offset = rows.data_ptr() - self._hidden.data_ptr()
        if not 0 <= offset < self._hidden.nbytes:
            return None
        return offset // (self._hidden.stride(0) * self._hidden.element_size())

    def read_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load one expert's checkpoint into the layers' own parameters."""
        super().load_weights(weights)  # type: ignore[misc]

    def _activate(self, slot: int, lora_a: Tensor, lora_b: Tensor) -> None:
        """Let vLLM's `slot` mean the expert that an adapter names. The expert stays in host
        memory as long as vLLM keeps the adapter. If it cannot be read, vLLM forgets the
        adapter."""
        checkpoint = expert_path(lora_a)
        if checkpoint is None:
            return  # vLLM's warm-up
        try:
            self.bank.name(slot, checkpoint)
        except Exception:
            self._manager.remove_adapter(self._manager.lora_index_to_id[slot])
            raise
        key = id(lora_b)
        if key not in self._adapters:
            self._adapters.add(key)
            self.bank.hold(checkpoint)
            weakref.finalize(lora_b, self._forget, key, checkpoint)

    def _forget(self, key: int, checkpoint: Path) -> None:
        self._adapters.discard(key)
        self.bank.release(checkpoint)


class BankLlamaForCausalLM(BankModel, LlamaForCausalLM):  # type: ignore[misc]  # untyped to mypy
    """Experts of Llama's architecture."""


class BankMistralForCausalLM(BankModel, MistralForCausalLM):  # type: ignore[misc]
    """Experts of Mistral's architecture."""


class BankQwen2ForCausalLM(BankModel, Qwen2ForCausalLM):  # type: ignore[misc]
    """Experts of Qwen2's architecture."""


class BankQwen3ForCausalLM(BankModel, Qwen3ForCausalLM):  # type: ignore[misc]
    """Experts of Qwen3's architecture."""


class BankBitNetForCausalLM(BankModel, BitNetForCausalLM):
    """Experts of BitNet's architecture."""
