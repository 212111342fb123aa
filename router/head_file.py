"""A fitted head as a file: the rows as the meta worker takes them, and what they mean."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from router.head import QUESTIONS, START, UNUSED, Background, HeadRow, build_head
from router.joint import JointFit
from router.vocabulary import DEFAULT_SLOTS

KEY = "trivium_head"


class HeadFileError(ValueError):
    """Not a head file of `trivium router fit`; the message says why."""


@dataclass(frozen=True)
class HeadFacts:
    """What a head file says of its rows.

    Attributes:
        experts: names; the expert at place i has slot i.
        fingerprint: of the meta LLM and its features.
        margin: see `router.joint.JointFit`.
        training: the data it was fitted on: path, sha256, limit, seed.
    """

    experts: list[str]
    fingerprint: str
    margin: float
    training: dict[str, Any] = field(default_factory=dict)


def write_head(path: Path, fit: JointFit, facts: HeadFacts) -> None:
    """Write the tensors of a `router.head.Head`, with the facts as metadata.

    Only `start` is answered: the data shows where answers begin, not what is inside them.
    """
    count, size = fit.weights.shape
    rows = {}
    for slot in range(count):
        weights = np.zeros((len(QUESTIONS), size), np.float32)
        bias = np.full(len(QUESTIONS), UNUSED, np.float32)
        weights[START], bias[START] = fit.weights[slot], fit.bias[slot]
        rows[slot] = HeadRow(weights, bias, np.full(len(QUESTIONS), fit.margin, np.float32))
    head = build_head(rows, max(DEFAULT_SLOTS, count), size, fit.background)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(head.tensors(), path, metadata={KEY: json.dumps(asdict(facts))})


def read_head(path: Path) -> tuple[JointFit, HeadFacts]:
    """Read it back. Raises HeadFileError."""
    try:
        with safe_open(path, framework="numpy") as file:
            facts = HeadFacts(**json.loads((file.metadata() or {})[KEY]))
            rows, bias = file.get_tensor("rows"), file.get_tensor("bias")
            kinds = Background(file.get_tensor("background"), file.get_tensor("background_bias"))
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise HeadFileError(
            f"{path} is not a head written by `trivium router fit` ({type(error).__name__})"
        ) from None
    count = len(facts.experts)
    return JointFit(rows[START, :count], bias[START, :count], facts.margin, kinds), facts
