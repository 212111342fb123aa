"""Evaluation sets of starter experts, and of packs that are built like them. No torch."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FILE = "evaluation.jsonl"

IsCorrect = Callable[[str, str], bool]
"""Whether a text, an answer in a model's words, is the answer that is wanted."""


@dataclass(frozen=True)
class Question:
    """One line of an evaluation set: a conversation that ends with a user's turn, the answer in
    short, and the kind of problem."""

    messages: list[dict[str, str]]
    answer: str
    operation: str


def load_questions(folder: Path) -> list[Question]:
    """The evaluation set in an expert's folder; empty if it has none."""
    path = folder / FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Question(**json.loads(line)) for line in lines if line.strip()]


def scorer(package: str) -> IsCorrect:
    """`is_correct` of the module `answers` in an expert's package."""
    found: IsCorrect = importlib.import_module(f"{package}.answers").is_correct
    return found
