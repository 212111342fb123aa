"""The gate and the model's scores, on tensors: the same classes vLLM runs, without an engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from router.vllm_plugin.arguments import parse_arguments
from router.vllm_plugin.channel import CHANNEL, MAX_CAPTURED_REQUESTS, Channel
from router.vllm_plugin.gate import ExpertGate

FIRST, SLOTS, ROWS = 10, 3, 4
VOCABULARY = FIRST + SLOTS


FULL_STOP, END = 3, 4
NO, YES, NEVER = -5.0, 5.0, float("-inf")


def gate() -> ExpertGate:
    layout = {
        "first_id": FIRST,
        "slots": SLOTS,
        "sentence_end_ids": [FULL_STOP],
        "end_of_turn_ids": [END],
    }
    config: Any = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=SimpleNamespace(expert_tokens=layout)),
        scheduler_config=SimpleNamespace(max_num_seqs=ROWS),
    )
    return ExpertGate(config, torch.device("cpu"), False)


def params(**extra: Any) -> SamplingParams:
    return SamplingParams(extra_args={f"trivium_{key}": value for key, value in extra.items()})


def added(*requests: SamplingParams) -> tuple[BatchUpdate, list[list[int]]]:
    """A batch of new requests, and the lists of tokens they will write."""
    outputs: list[list[int]] = [[] for _ in requests]
    rows = [(row, p, None, outputs[row]) for row, p in enumerate(requests)]
    return BatchUpdate(len(requests), removed=(), added=rows, moved=()), outputs  # type: ignore[arg-type]


def step(
    processor: ExpertGate,
    start: list[list[float]],
    pending: list[list[float]] | None = None,
    turn: list[list[float]] | None = None,
    likeliest: int = 1,
) -> list[int]:
    """One engine step: the argmax of each row after the gate. Questions default to no."""
    no = [[NO] * SLOTS] * len(start)
    CHANNEL.hidden = torch.arange(2.0 * len(start)).reshape(-1, 2)
    CHANNEL.scores = torch.tensor([start, pending or no, turn or no])
    CHANNEL.likeliest = torch.full((len(start),), likeliest)
    logits = torch.zeros(len(start), VOCABULARY)
    logits[:, likeliest] = 50.0
    logits[:, FIRST:] = float("-inf")
    return [int(row.argmax()) for row in processor.apply(logits)]


def decide(requests: list[SamplingParams], start: list[list[float]]) -> list[int]:
    """What the first tokens of `requests` are."""
    processor = gate()
    processor.update_state(added(*requests)[0])
    return step(processor, start)


ALL = [FIRST, FIRST + 1, FIRST + 2]


def test_the_best_expert_wins_if_its_log_odds_are_positive() -> None:
    assert decide([params(experts=ALL)], [[-1.0, 0.5, 0.2]]) == [FIRST + 1]
    assert decide([params(experts=ALL)], [[-1.0, -0.5, -0.2]]) == [1]


def test_only_allowed_experts_can_win() -> None:
    assert decide([params(experts=[FIRST])], [[0.1, 9.0, 9.0]]) == [FIRST]
    assert decide([params(experts=[FIRST])], [[-0.1, 9.0, 9.0]]) == [1]


def test_a_plain_request_beside_a_gated_one_never_sees_an_expert_token() -> None:
    requests = [SamplingParams(), params(experts=ALL)]
    assert decide(requests, [[9.0, 9.0, 9.0], [0.0, 0.0, 1.0]]) == [1, FIRST + 2]


def test_a_request_can_bias_the_decision() -> None:
    assert decide([params(experts=ALL, bias=[0, 0, 2])], [[0.5, 0.0, -1.0]]) == [FIRST + 2]
    assert decide([params(experts=ALL, bias=[-9, -9, -9])], [[0.5, 1.0, 2.0]]) == [1]


def test_an_unused_slot_never_wins() -> None:
    never = float("-inf")
    assert decide([params(experts=ALL)], [[never, never, never]]) == [1]


def test_ids_that_are_no_expert_tokens_allow_nothing() -> None:
    assert decide([params(experts=[3, 999])], [[9.0, 9.0, 9.0]]) == [1]


class Conversation:
    """One request followed from its first token; slot 1 is pending unless told otherwise."""

    def __init__(self, pending: float = YES, **extra: Any) -> None:
        self.gate = gate()
        update, (self.output,) = added(params(experts=ALL, **extra))
        self.gate.update_state(update)
        step(self.gate, [[NO] * SLOTS], pending=[[NO, pending, NO]])

    def after(self, token: int, *, turn: float = YES, likeliest: int = 1) -> int:
        """The token that follows when `token` was written."""
        self.output.append(token)
        self.gate.update_state(None)
        return step(self.gate, [[YES] * SLOTS], turn=[[turn, turn, NO]], likeliest=likeliest)[0]


def test_a_pending_expert_takes_over_when_a_sentence_ends_and_its_turn_has_come() -> None:
    conversation = Conversation()
    assert conversation.after(2) == 1
    assert conversation.after(FULL_STOP, turn=NO) == 1
    assert conversation.after(2) == 1
    assert conversation.after(FULL_STOP) == FIRST + 1


def test_one_that_was_preempted_still_knows_what_is_pending() -> None:
    conversation = Conversation()
    wanted = params(experts=ALL)
    update, (output,) = added(wanted)
    conversation.gate.update_state(update)
    step(conversation.gate, [[NO] * SLOTS], pending=[[NO, YES, NO]])
    conversation.gate.update_state(BatchUpdate(0, removed=[0], added=(), moved=()))
    output.append(FULL_STOP)
    back: Any = [(0, wanted, None, list(output))]
    conversation.gate.update_state(BatchUpdate(1, removed=(), added=back, moved=()))
    assert step(conversation.gate, [[NO] * SLOTS], turn=[[NO, YES, NO]]) == [FIRST + 1]


def test_the_meta_would_stop_also_where_a_client_forbids_it() -> None:
    """`min_tokens` and `logit_bias` are in the logits before the gate sees them."""
    conversation = Conversation()
    conversation.output.append(2)
    conversation.gate.update_state(None)
    CHANNEL.hidden, CHANNEL.likeliest = torch.zeros(1, 2), torch.tensor([END])
    CHANNEL.scores = torch.tensor([[[NO] * SLOTS], [[NO] * SLOTS], [[NO, YES, NO]]])
    logits = torch.zeros(1, VOCABULARY)
    logits[:, END] = logits[:, FIRST] = NEVER
    assert int(conversation.gate.apply(logits).argmax()) == FIRST + 1


def test_it_takes_over_where_the_meta_would_stop() -> None:
    assert Conversation().after(2, likeliest=END) == FIRST + 1
    assert Conversation().after(2, likeliest=END, turn=NO) == END


def test_an_expert_that_was_not_pending_does_not() -> None:
    assert Conversation(pending=NO).after(FULL_STOP) == 1


def test_position_start_allows_the_first_token_only() -> None:
    assert decide([params(experts=ALL, position="start")], [[1.0, 0.0, 0.0]]) == [FIRST]
    assert Conversation(position="start").after(FULL_STOP) == 1


def resumed(*, start: float = YES, pending: float = YES, turn: float = YES) -> list[int]:
    """The tokens of an answer that goes on within a sentence, for one answer to each question."""
    processor = gate()
    update, (output,) = added(params(experts=ALL, midway=1))
    written = []
    for before in (None, 2, FULL_STOP, 2, FULL_STOP):
        if before is not None:
            output.append(before)
        processor.update_state(None if output else update)
        asked = ([[NO, answer, NO]] for answer in (start, pending, turn))
        written += step(processor, *asked)
    return written


def test_an_answer_that_goes_on_within_a_sentence_is_decided_at_its_end() -> None:
    assert resumed() == [1, 1, FIRST + 1, 1, FIRST + 1]
    for question in ("start", "pending", "turn"):
        assert resumed(**{question: NO}) == [1] * 5
    assert decide([params(experts=ALL, midway=0)], [[1.0, 0.0, 0.0]]) == [FIRST]


def test_such_an_answer_may_be_handed_over_where_the_meta_would_stop() -> None:
    processor = gate()
    processor.update_state(added(params(experts=ALL, midway=1))[0])
    yes = [[NO, YES, NO]]
    assert step(processor, yes, yes, yes, likeliest=END) == [FIRST + 1]


def test_what_is_pending_within_a_sentence_is_that_of_the_prompts_last_chunk() -> None:
    """A prompt passes once a chunk, and one that is not the last may end where a turn does."""
    processor = gate()
    update, (output,) = added(params(experts=ALL, midway=1))
    processor.update_state(update)
    no, yes = [[NO] * SLOTS], [[NO, YES, NO]]
    assert step(processor, no, no, no, likeliest=END) == [END]  # the first chunk
    processor.update_state(None)
    assert step(processor, yes, yes, yes) == [1]  # the last
    output.append(FULL_STOP)
    processor.update_state(None)
    assert step(processor, yes, yes, yes) == [FIRST + 1]
    output.append(2)
    processor.update_state(None)
    step(processor, no, no, no)
    output.append(FULL_STOP)
    processor.update_state(None)
    assert step(processor, no, no, yes) == [FIRST + 1]  # decided once, at the first sentence's end


def test_what_is_pending_follows_its_request_through_the_batch() -> None:
    processor = gate()
    update, outputs = added(params(experts=ALL), params(experts=ALL))
    processor.update_state(update)
    step(processor, [[NO] * SLOTS] * 2, pending=[[NO, NO, NO], [NO, NO, YES]])
    for output in outputs:
        output.append(FULL_STOP)
    moved = [(1, 0, MoveDirectionality.UNIDIRECTIONAL)]
    processor.update_state(BatchUpdate(1, removed=[0], added=(), moved=moved))
    assert step(processor, [[NO] * SLOTS], turn=[[YES] * SLOTS]) == [FIRST + 2]


def test_hidden_states_are_kept_for_requests_that_ask() -> None:
    CHANNEL.captures.clear()
    processor = gate()
    processor.update_state(added(params(capture="k"), params(experts=ALL))[0])
    step(processor, [[NO] * SLOTS] * 2)
    assert CHANNEL.take("k")[0].tolist() == [0.0, 1.0]
    assert CHANNEL.take("k") == {}


def test_what_decided_is_kept_where_it_is_asked_for() -> None:
    CHANNEL.captures.clear()
    decide([params(experts=[FIRST, FIRST + 1], explain="k"), params(experts=ALL)], [[-1, 2, 9]] * 2)
    assert CHANNEL.captures.keys() == {"k"}
    assert CHANNEL.take("k")[0].tolist() == [-1, 2, NEVER] * 2


def test_a_later_hand_over_is_explained_and_other_tokens_are_not() -> None:
    CHANNEL.captures.clear()
    conversation = Conversation(explain="k", pending=3.0)
    conversation.after(1)
    assert conversation.after(FULL_STOP, turn=0.5) == FIRST + 1
    kept = CHANNEL.take("k")
    assert sorted(kept) == [0, 2]
    assert kept[2].tolist() == [NO, 3.0, NO, 0.5, 0.5, NO]


def test_captures_are_bounded() -> None:
    channel = Channel()
    for number in range(MAX_CAPTURED_REQUESTS + 5):
        channel.capture(str(number), 0, torch.zeros(1))
    assert len(channel.captures) == MAX_CAPTURED_REQUESTS
    assert "4" not in channel.captures


@pytest.mark.parametrize(
    "extra",
    [
        {"trivium_experts": "12"},
        {"trivium_experts": ["x"]},
        {"trivium_experts": [1.5]},
        {"trivium_experts": [1], "trivium_bias": [1, 2]},
        {"trivium_experts": [1], "trivium_bias": ["x"]},
        {"trivium_position": "middle"},
        {"trivium_midway": "yes"},
        {"trivium_capture": 3},
        {"trivium_explain": ["a"]},
    ],
)
def test_malformed_arguments_are_refused_in_the_front_end(extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="trivium_"):
        ExpertGate.validate_params(SamplingParams(extra_args=extra))
    assert parse_arguments({"other": 1}) is None


def test_the_interfaces_of_vllm_that_the_gate_leans_on_have_not_moved() -> None:
    assert issubclass(ExpertGate, LogitsProcessor)
    assert {"removed", "added", "moved", "batch_size"} <= set(BatchUpdate.__dataclass_fields__)
