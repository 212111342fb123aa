"""The gate: a logits processor that decides, for each request and token, whether an expert
takes over.

It reads the raw log-odds that the model left in the channel, so the decision depends neither on
temperature, top-p and penalties nor on logit_bias and min_tokens: the expert with the highest
log-odds among those the request allows wins if that is above 0, and its token is forced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from router.vllm_plugin.arguments import GateArguments, parse_arguments
from router.vllm_plugin.channel import CHANNEL
from router.vocabulary import ExpertVocabulary

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.sample.logits_processor import BatchUpdate

Request = tuple[GateArguments, list[int]]
"""A request's arguments and its list of tokens written so far (vLLM keeps it current)."""


class ExpertGate(LogitsProcessor):  # type: ignore[misc]
    """Forces an expert token where its log-odds say so. See the module's docstring."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raise ValueError (HTTP 400) for malformed gate arguments."""
        parse_arguments(sampling_params.extra_args)

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        layout = vllm_config.model_config.hf_config.expert_tokens
        self._vocabulary = ExpertVocabulary(int(layout["first_id"]), int(layout["slots"]))
        self._requests: dict[int, Request] = {}
        rows = vllm_config.scheduler_config.max_num_seqs
        self._allowed = torch.full((rows, self._vocabulary.slots), float("-inf"), device=device)
        """Added to the scores: the request's bias where a slot is allowed, else -inf."""
        self._later = torch.zeros(rows, dtype=torch.long)
        """1 for a request that has written a token already; which bias applies."""

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        changed = process_dict_updates(self._requests, batch_update, self._new_request)
        if changed:
            self._fill_allowed()
        for row, (arguments, output) in self._requests.items():
            self._later[row] = bool(output)
            if output and arguments.position == "start":
                self._allowed[row] = float("-inf")

    def _new_request(
        self, params: SamplingParams, prompt: list[int] | None, output: list[int]
    ) -> Request | None:
        arguments = parse_arguments(params.extra_args)
        return None if arguments is None else (arguments, output)

    def _fill_allowed(self) -> None:
        allowed = torch.full(self._allowed.shape, float("-inf"))
        for row, (arguments, _) in self._requests.items():
            for token, bias in zip(arguments.tokens, arguments.bias, strict=True):
                slot = self._vocabulary.slot(token)
                if slot is not None:  # an id that is no expert token allows nothing
                    allowed[row, slot] = bias
        self._allowed.copy_(allowed)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Decide for a batch. `logits`: `[rows, vocabulary + slots]`, changed in place."""
        if not self._requests:
            return logits
        rows = logits.shape[0]
        hidden, scores, bias = CHANNEL.hidden, CHANNEL.scores, CHANNEL.bias
        assert hidden is not None
        assert scores is not None
        assert bias is not None
        assert scores.shape[0] == rows, "the gate sees another batch than the model scored"
        self._capture(hidden)
        position = self._later[:rows].to(bias.device)
        best, slot = (scores + bias.T[position] + self._allowed[:rows]).max(dim=-1)
        wins = best > 0
        token = (slot + self._vocabulary.first_id).unsqueeze(1)
        kept = logits.gather(1, token)
        logits.masked_fill_(wins.unsqueeze(1), float("-inf"))
        logits.scatter_(1, token, torch.where(wins.unsqueeze(1), torch.zeros_like(kept), kept))
        return logits

    def _capture(self, hidden: torch.Tensor) -> None:
        for row, (arguments, output) in self._requests.items():
            if arguments.capture is not None:
                CHANNEL.capture(arguments.capture, len(output), hidden[row])
