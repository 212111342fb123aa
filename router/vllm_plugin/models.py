"""Meta LLM classes for vLLM: a mixin that scores the expert tokens beside the logits.

The head is not part of `lm_head`: the CPU build repacks that matrix at load, and tensor
parallelism shards it. The rows live beside the model and are replaced between two steps.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from router.features import Features
from router.vllm_plugin.channel import CHANNEL


class ExpertTokenMixin:
    """Adds the expert-token head to a `…ForCausalLM` of vLLM.

    For features f and slot k there are three scores f·row + bias, the log-odds of the questions
    in `router.head.QUESTIONS`; the features are those of `router/features.py`. In the logits the
    expert tokens' columns are -inf, so that log-probabilities and plain clients never see them;
    the gate (`gate.py`) raises the winner.
    """

    expert_rows: torch.Tensor
    """`[3, slots, features]` float32."""
    expert_bias: torch.Tensor
    """`[3, slots]` float32; -inf where the slot is unused."""
    expert_head_version: str
    """Version of the head in use; empty before the first push."""
    expert_first_id: int
    expert_hidden_size: int

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        config = vllm_config.model_config.hf_config
        layout = config.expert_tokens
        self.expert_first_id = int(layout["first_id"])
        slots, features = int(layout["slots"]), Features.of(config.to_dict())
        self.expert_hidden_size = config.hidden_size
        self.expert_rows = torch.zeros(3, slots, features.size, dtype=torch.float32)
        self.expert_bias = torch.full((3, slots), float("-inf"), dtype=torch.float32)
        self.expert_head_version = ""
        if features.layers:  # vLLM has them for EAGLE-3's draft models
            self.set_aux_hidden_state_layers(features.layers)  # type: ignore[attr-defined]

    def set_expert_head(self, rows: torch.Tensor, bias: torch.Tensor, version: str) -> None:
        """Replace the whole head. Shapes `[3, slots, features]` and `[3, slots]`."""
        if rows.shape != self.expert_rows.shape or bias.shape != self.expert_bias.shape:
            raise ValueError(
                f"the head is {tuple(rows.shape)}, this meta LLM's is"
                f" {tuple(self.expert_rows.shape)}"
            )
        device = self.expert_rows.device
        self.expert_rows = rows.to(device, torch.float32)
        self.expert_bias = bias.to(device, torch.float32)
        self.expert_head_version = version

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Features `[tokens, features]`; vLLM carries them as it would carry hidden states."""
        states = super().forward(*args, **kwargs)  # type: ignore[misc]
        if isinstance(states, tuple):
            last, early = states
            return torch.cat([last, *early], dim=-1)
        return states  # pipeline parallelism: not the last rank

    def compute_logits(self, hidden_states: torch.Tensor, *args: Any) -> torch.Tensor | None:
        """Logits `[rows, vocabulary + slots]` with expert columns at -inf; scores to the gate."""
        logits: torch.Tensor | None = super().compute_logits(  # type: ignore[misc]
            hidden_states[:, : self.expert_hidden_size].contiguous(), *args
        )
        if logits is None:  # another tensor-parallel rank samples
            return None
        CHANNEL.hidden = hidden_states
        scores = torch.einsum("bh,qsh->qbs", hidden_states.float(), self.expert_rows)
        CHANNEL.scores = scores + self.expert_bias.unsqueeze(1)
        logits[:, self.expert_first_id :] = float("-inf")
        return logits


class ExpertTokenLlamaForCausalLM(ExpertTokenMixin, LlamaForCausalLM):  # type: ignore[misc]
    pass


class ExpertTokenMistralForCausalLM(ExpertTokenMixin, MistralForCausalLM):  # type: ignore[misc]
    pass


class ExpertTokenQwen2ForCausalLM(ExpertTokenMixin, Qwen2ForCausalLM):  # type: ignore[misc]
    pass


class ExpertTokenQwen3ForCausalLM(ExpertTokenMixin, Qwen3ForCausalLM):  # type: ignore[misc]
    pass
