"""Per-request arguments of the gate, as they come in `vllm_xargs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Position = Literal["start", "anywhere"]

EXPERTS, BIAS, POSITION, MIDWAY, CAPTURE, EXPLAIN = (
    "trivium_experts",
    "trivium_bias",
    "trivium_position",
    "trivium_midway",
    "trivium_capture",
    "trivium_explain",
)


@dataclass(frozen=True)
class GateArguments:
    """What one request allows.

    Attributes:
        tokens: ids of the expert tokens that may be chosen.
        bias: added to each of those experts' log-odds.
        position: only for the first token, or for any.
        midway: the prompt ends within a sentence of the answer, which goes on.
        capture: key under which to keep this request's hidden states, if any.
        explain: key under which to keep the log-odds that decided, if any.
    """

    tokens: tuple[int, ...]
    bias: tuple[float, ...]
    position: Position
    midway: bool
    capture: str | None
    explain: str | None


def parse_arguments(extra: Mapping[str, Any] | None) -> GateArguments | None:
    """The gate's arguments in `extra`, or None for a plain request.

    Checks their form only: vLLM calls this in the front end, where a ValueError becomes an HTTP
    400, before the engine sees the request. In the engine an exception would end the worker.
    """
    extra = extra or {}
    if not any(key in extra for key in (EXPERTS, BIAS, POSITION, MIDWAY, CAPTURE, EXPLAIN)):
        return None
    tokens = _numbers(extra, EXPERTS, int)
    bias = _numbers(extra, BIAS, (int, float)) or [0.0] * len(tokens)
    if len(bias) != len(tokens):
        raise ValueError(f"{BIAS} needs one number for each id in {EXPERTS}")
    position = extra.get(POSITION, "anywhere")
    if position not in ("start", "anywhere"):
        raise ValueError(f"{POSITION} is 'start' or 'anywhere', not {position!r}")
    midway = extra.get(MIDWAY, 0)  # vLLM lets no true and false through
    if midway not in (0, 1):
        raise ValueError(f"{MIDWAY} is 0 or 1, not {midway!r}")
    capture, explain = (_key(extra, name) for name in (CAPTURE, EXPLAIN))
    biases = tuple(map(float, bias))
    return GateArguments(tuple(tokens), biases, position, bool(midway), capture, explain)


def _key(extra: Mapping[str, Any], name: str) -> str | None:
    key = extra.get(name)
    if key is not None and not isinstance(key, str):
        raise ValueError(f"{name} is a string")
    return key


def _numbers(extra: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> list[Any]:
    values = extra.get(key, [])
    if not isinstance(values, list) or not all(
        isinstance(value, kind) and not isinstance(value, bool) for value in values
    ):
        raise ValueError(f"{key} is a list of numbers")
    return values
