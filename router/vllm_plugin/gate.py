"""The gate: a logits processor that decides, for each request and token, whether an expert
takes over.

At the first token an expert wins whose `start` log-odds are the highest and above 0. Later, at
the end of a sentence or where the meta LLM would end its turn, an expert wins that was `pending`
at the first token and whose `turn` has come (`router.head.QUESTIONS`). The winner's token is
forced. An answer that is resumed within a sentence (`trivium_midway`) has no such first token; at
the end of that sentence an expert wins for which all three speak. The gate reads the raw log-odds
and the likeliest token that the model left in the channel, so the decision depends neither on
temperature, top-p and penalties nor on logit_bias and min_tokens.

It is a processor of vLLM's model runner V1, and reads the token before: without asynchronous
scheduling, under which that is not known yet (`server/workers/vllm_command.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from router.head import QUESTIONS
from router.vllm_plugin.arguments import GateArguments, parse_arguments
from router.vllm_plugin.channel import CHANNEL
from router.vocabulary import ExpertVocabulary

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.sample.logits_processor import BatchUpdate

NEVER = float("-inf")
MOST_KNOWN = 4096
"""Requests whose memory is kept for when they come back into the batch."""
START, PENDING, TURN = (QUESTIONS.index(question) for question in ("start", "pending", "turn"))


@dataclass(eq=False)
class Request:
    """One request in the batch. `output` are its tokens so far; vLLM keeps the list current."""

    arguments: GateArguments
    output: list[int]
    pending: torch.Tensor | None = None
    """`[slots]`: the log-odds seen at its first token, or at the end of the first sentence."""
    since: int = 0
    """How many tokens it had written then."""


class ExpertGate(LogitsProcessor):  # type: ignore[misc]
    """Forces an expert token where its log-odds say so. See the module's docstring."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raise ValueError (HTTP 400) for malformed gate arguments."""
        parse_arguments(sampling_params.extra_args)

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        layout = vllm_config.model_config.hf_config.expert_tokens
        self._vocabulary = ExpertVocabulary(int(layout["first_id"]), int(layout["slots"]))
        self._sentence_ends = frozenset(layout["sentence_end_ids"])
        self._turn_ends = torch.tensor(layout["end_of_turn_ids"], device=device)
        self._requests: dict[int, Request] = {}
        self._known: OrderedDict[int, tuple[SamplingParams, Request]] = OrderedDict()
        """By the identity of their parameters, which vLLM keeps as long as a request lives."""
        shape = (vllm_config.scheduler_config.max_num_seqs, self._vocabulary.slots)
        self._allowed = torch.full(shape, NEVER, device=device)
        """Added to the log-odds: the request's bias where a slot is allowed, else -inf."""
        self._pending = torch.full(shape, NEVER, device=device)
        self._at_start = torch.zeros(shape[0], 1, dtype=torch.bool, device=device)
        self._sentence_over = torch.zeros(shape[0], 1, dtype=torch.bool, device=device)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if process_dict_updates(self._requests, batch_update, self._new_request):
            self._fill_rows()
        at_start = [False] * len(self._at_start)
        sentence_over = [False] * len(self._at_start)
        for row, request in self._requests.items():
            at_start[row] = not request.output and not request.arguments.midway
            sentence_over[row] = bool(request.output) and self._ended(request)
        self._at_start.copy_(torch.tensor(at_start).unsqueeze(1))
        self._sentence_over.copy_(torch.tensor(sentence_over).unsqueeze(1))

    def _new_request(
        self, params: SamplingParams, prompt: list[int] | None, output: list[int]
    ) -> Request | None:
        """One that was preempted comes back with what it has written, and has its memory again."""
        arguments = parse_arguments(params.extra_args)
        if arguments is None:
            return None
        request = Request(arguments, output)
        if output and id(params) in self._known:
            known = self._known[id(params)][1]
            request.pending, request.since = known.pending, known.since
        self._known[id(params)] = params, request
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return request

    def _ended(self, request: Request) -> bool:
        return request.output[-1] in self._sentence_ends

    def _fill_rows(self) -> None:
        """What depends on which request is in which row of the batch."""
        allowed = torch.full(self._allowed.shape, NEVER)
        self._pending.fill_(NEVER)
        for row, request in self._requests.items():
            for token, bias in zip(request.arguments.tokens, request.arguments.bias, strict=True):
                slot = self._vocabulary.slot(token)
                if slot is not None:  # an id that is no expert token allows nothing
                    allowed[row, slot] = bias
            if request.pending is not None:
                self._pending[row] = request.pending
        self._allowed.copy_(allowed)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Decide for a batch. `logits`: `[rows, vocabulary + slots]`, changed in place."""
        if not self._requests:
            return logits
        rows = logits.shape[0]
        hidden, scores = CHANNEL.hidden, CHANNEL.scores
        assert hidden is not None
        assert scores is not None
        assert scores.shape[1] == rows, "the gate sees another batch than the model scored"
        self._remember(hidden, scores)
        both = self._log_odds(scores)
        best, slot = both.amin(dim=0).max(dim=-1, keepdim=True)
        wins = best > 0
        self._explain(both, wins)
        token = slot + self._vocabulary.first_id
        kept = logits.gather(1, token)
        logits.masked_fill_(wins, NEVER)
        logits.scatter_(1, token, torch.where(wins, torch.zeros_like(kept), kept))
        return logits

    def _log_odds(self, scores: torch.Tensor) -> torch.Tensor:
        """`[2, rows, slots]`: the two that a hand-over at this token takes, pending and turn, which
        at the first token are one; -inf where there can be none."""
        rows = scores.shape[1]
        at_start = self._at_start[:rows]
        can_turn = self._sentence_over[:rows] | (self._ends_turn() & ~at_start)
        later = torch.stack([self._pending[:rows], scores[TURN]]).masked_fill(~can_turn, NEVER)
        return torch.where(at_start, scores[START], later) + self._allowed[:rows]

    def _explain(self, both: torch.Tensor, wins: torch.Tensor) -> None:
        """Keep what decided the first token, and a hand-over, where that was asked for."""
        for row, request in self._requests.items():
            key = request.arguments.explain
            if key is not None and (not request.output or bool(wins[row])):
                CHANNEL.capture(key, len(request.output), both[:, row].flatten())

    def _ends_turn(self) -> torch.Tensor:
        """`[rows, 1]`: whether the meta LLM would end its turn here."""
        assert CHANNEL.likeliest is not None
        return torch.isin(CHANNEL.likeliest.unsqueeze(1), self._turn_ends)

    def _remember(self, hidden: torch.Tensor, scores: torch.Tensor) -> None:
        """Keep what later tokens need, and the hidden states that were asked for.

        A prompt that is prefilled in chunks passes here once a chunk; the last one counts.
        """
        for row, request in self._requests.items():
            if request.arguments.position == "anywhere":
                self._remember_pending(row, request, scores)
            if request.arguments.capture is not None:
                CHANNEL.capture(request.arguments.capture, len(request.output), hidden[row])

    def _remember_pending(self, row: int, request: Request, scores: torch.Tensor) -> None:
        written = len(request.output)
        if request.arguments.midway:
            if request.pending is not None and request.since != written:
                return
            if not self._sentence_ends_at(row, request):
                request.pending = None
                self._pending[row] = NEVER
                return
            request.pending = torch.minimum(scores[START, row], scores[PENDING, row])
        elif request.output:
            return
        else:
            request.pending = scores[PENDING, row].clone()
        request.since = written
        self._pending[row] = request.pending

    def _sentence_ends_at(self, row: int, request: Request) -> bool:
        if request.output and self._ended(request):
            return True
        return bool(self._ends_turn()[row])
