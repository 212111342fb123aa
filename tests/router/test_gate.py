"""The gate and the model's scores, on tensors: the same classes vLLM runs, without an engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

from router.vllm_plugin.arguments import parse_arguments
from router.vllm_plugin.channel import CHANNEL, MAX_CAPTURED_REQUESTS, Channel
from router.vllm_plugin.gate import ExpertGate

FIRST, SLOTS, ROWS = 10, 3, 4
VOCABULARY = FIRST + SLOTS


def gate() -> ExpertGate:
    layout = {"first_id": FIRST, "slots": SLOTS}
    config: Any = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=SimpleNamespace(expert_tokens=layout)),
        scheduler_config=SimpleNamespace(max_num_seqs=ROWS),
    )
    return ExpertGate(config, torch.device("cpu"), False)


def params(**extra: Any) -> SamplingParams:
    return SamplingParams(extra_args={f"trivium_{key}": value for key, value in extra.items()})


def decide(
    requests: list[SamplingParams],
    scores: list[list[float]],
    written: list[list[int]] | None = None,
    bias: list[list[float]] | None = None,
) -> list[int]:
    """The argmax of each row after the gate; ordinary token 1 is the likeliest before it."""
    outputs = written or [[] for _ in requests]
    processor = gate()
    added = [(row, p, None, outputs[row]) for row, p in enumerate(requests)]
    processor.update_state(BatchUpdate(len(requests), removed=(), added=added, moved=()))
    CHANNEL.hidden = torch.zeros(len(requests), 2)
    CHANNEL.scores = torch.tensor(scores)
    CHANNEL.bias = torch.tensor(bias or [[0.0, 0.0]] * SLOTS)
    logits = torch.zeros(len(requests), VOCABULARY)
    logits[:, 1] = 50.0
    logits[:, FIRST:] = float("-inf")
    return [int(row.argmax()) for row in processor.apply(logits)]


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


def test_position_start_allows_the_first_token_only() -> None:
    request = params(experts=ALL, position="start")
    assert decide([request], [[1.0, 0.0, 0.0]]) == [FIRST]
    assert decide([request], [[1.0, 0.0, 0.0]], written=[[5]]) == [1]


def test_the_bias_follows_the_position() -> None:
    strict_later = [[0.0, -5.0]] * SLOTS
    request = params(experts=ALL)
    assert decide([request], [[1.0, 0.0, 0.0]], bias=strict_later) == [FIRST]
    assert decide([request], [[1.0, 0.0, 0.0]], written=[[5]], bias=strict_later) == [1]


def test_an_unused_slot_never_wins() -> None:
    unused = [[float("-inf"), float("-inf")]] * SLOTS
    assert decide([params(experts=ALL)], [[9.0, 9.0, 9.0]], bias=unused) == [1]


def test_ids_that_are_no_expert_tokens_allow_nothing() -> None:
    assert decide([params(experts=[3, 999])], [[9.0, 9.0, 9.0]]) == [1]


def test_a_request_that_starts_writing_later_in_the_batch_is_followed() -> None:
    written: list[int] = []
    processor = gate()
    request = params(experts=ALL, position="start")
    processor.update_state(
        BatchUpdate(1, removed=(), added=[(0, request, None, written)], moved=())
    )
    written.append(7)
    processor.update_state(None)
    CHANNEL.hidden, CHANNEL.scores = torch.zeros(1, 2), torch.tensor([[5.0, 5.0, 5.0]])
    CHANNEL.bias = torch.zeros(SLOTS, 2)
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 1] = 9.0
    assert int(processor.apply(logits).argmax()) == 1


def test_hidden_states_are_kept_for_requests_that_ask() -> None:
    CHANNEL.captures.clear()
    processor = gate()
    requests = [params(capture="k"), params(experts=ALL)]
    added = [(row, p, None, []) for row, p in enumerate(requests)]
    processor.update_state(BatchUpdate(2, removed=(), added=added, moved=()))  # type: ignore[arg-type]
    CHANNEL.hidden = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    CHANNEL.scores, CHANNEL.bias = torch.zeros(2, SLOTS), torch.zeros(SLOTS, 2)
    processor.apply(torch.zeros(2, VOCABULARY))
    assert CHANNEL.take("k")[0].tolist() == [1.0, 2.0]
    assert CHANNEL.take("k") == {}


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
        {"trivium_capture": 3},
    ],
)
def test_malformed_arguments_are_refused_in_the_front_end(extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="trivium_"):
        ExpertGate.validate_params(SamplingParams(extra_args=extra))
    assert parse_arguments({"other": 1}) is None


def test_the_interfaces_of_vllm_that_the_gate_leans_on_have_not_moved() -> None:
    assert issubclass(ExpertGate, LogitsProcessor)
    assert {"removed", "added", "moved", "batch_size"} <= set(BatchUpdate.__dataclass_fields__)
