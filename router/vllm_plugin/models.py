"""Meta LLM classes for vLLM: a mixin that scores the expert tokens beside the logits.

The head is not part of `lm_head`: the CPU build repacks that matrix at load, and tensor
parallelism shards it. The rows live beside the model and are replaced between two steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from router.features import Features
from router.head import START
from router.vllm_plugin.channel import CHANNEL


class ExpertTokenMixin:
    """Adds the expert-token head to a `…ForCausalLM` of vLLM.

    For features f and slot k there are three scores f·row + bias, the log-odds of the questions
    in `router.head.QUESTIONS`, the first one less those of the background; the features are those
    of `router/features.py`. In the logits the expert tokens' columns are -inf, so that
    log-probabilities and plain clients never see them; the gate (`gate.py`) raises the winner.
    """

    expert_rows: torch.Tensor
    """`[3, slots, features]` float32."""
    expert_bias: torch.Tensor
    """`[3, slots]` float32; -inf where the slot is unused."""
    expert_background: torch.Tensor
    """`[kinds, features]` float32, and `[kinds]` in `expert_background_bias`; see
    `router.head.Background`."""
    expert_background_bias: torch.Tensor
    expert_head_version: str
    """Version of the head in use; empty before the first push."""
    expert_first_id: int
    expert_hidden_size: int

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        config = vllm_config.model_config.hf_config
        layout = config.expert_tokens
        if vllm_config.parallel_config.pipeline_parallel_size > 1:
            raise ValueError(
                "a meta LLM cannot be split into pipeline stages: its head reads early layers on"
                " the last one; use --tensor-parallel-size instead"
            )
        self.expert_first_id = int(layout["first_id"])
        slots, features = int(layout["slots"]), Features.of(config.to_dict())
        self.expert_hidden_size = config.hidden_size
        self.expert_rows = torch.zeros(3, slots, features.size, dtype=torch.float32)
        self.expert_bias = torch.full((3, slots), float("-inf"), dtype=torch.float32)
        self.expert_background = torch.zeros(0, features.size, dtype=torch.float32)
        self.expert_background_bias = torch.zeros(0, dtype=torch.float32)
        self.expert_head_version = ""
        if features.layers:  # vLLM has them for EAGLE-3's draft models
            self.set_aux_hidden_state_layers(features.layers)  # type: ignore[attr-defined]

    def set_expert_head(self, head: Mapping[str, torch.Tensor], version: str) -> None:
        """Replace the whole head by the tensors of a `router.head.Head`."""
        rows, bias = head["rows"], head["bias"]
        if rows.shape != self.expert_rows.shape or bias.shape != self.expert_bias.shape:
            raise ValueError(
                f"the head is {tuple(rows.shape)}, this meta LLM's is"
                f" {tuple(self.expert_rows.shape)}"
            )
        device = self.expert_rows.device
        self.expert_rows = rows.to(device, torch.float32)
        self.expert_bias = bias.to(device, torch.float32)
        self.expert_background = head["background"].to(device, torch.float32)
        self.expert_background_bias = head["background_bias"].to(device, torch.float32)
        self.expert_head_version = version

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Features `[tokens, features]`; vLLM carries them as it would carry hidden states."""
        states = super().forward(*args, **kwargs)  # type: ignore[misc]
        if isinstance(states, tuple):
            last, early = states
            return torch.cat([last, *early], dim=-1)
        return states

    def compute_logits(self, hidden_states: torch.Tensor, *args: Any) -> torch.Tensor | None:
        """Logits `[rows, vocabulary + slots]` with expert columns at -inf; scores to the gate."""
        logits: torch.Tensor | None = super().compute_logits(  # type: ignore[misc]
            hidden_states[:, : self.expert_hidden_size].contiguous(), *args
        )
        if logits is None:  # another tensor-parallel rank samples
            return None
        CHANNEL.hidden = hidden_states
        CHANNEL.scores = self._expert_scores(hidden_states.float())
        logits[:, self.expert_first_id :] = float("-inf")
        CHANNEL.likeliest = logits.argmax(dim=-1)
        return logits

    def _expert_scores(self, features: torch.Tensor) -> torch.Tensor:
        """`[3, rows, slots]` for features `[rows, features]`."""
        scores = torch.einsum("bh,qsh->qbs", features, self.expert_rows)
        scores += self.expert_bias.unsqueeze(1)
        if len(self.expert_background):
            kinds = features @ self.expert_background.T + self.expert_background_bias
            scores[START] -= torch.logsumexp(kinds, dim=-1, keepdim=True)
        return scores


class ExpertTokenLlamaForCausalLM(ExpertTokenMixin, LlamaForCausalLM):  # type: ignore[misc]
    pass


class ExpertTokenMistralForCausalLM(ExpertTokenMixin, MistralForCausalLM):  # type: ignore[misc]
    pass


class ExpertTokenQwen2ForCausalLM(ExpertTokenMixin, Qwen2ForCausalLM):  # type: ignore[misc]
    pass


class ExpertTokenQwen3ForCausalLM(ExpertTokenMixin, Qwen3ForCausalLM):  # type: ignore[misc]
    pass
