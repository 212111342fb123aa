"""Evaluation sets of starter experts, and of packs that are built like them. No torch."""

from __future__ import annotations

import importlib
import importlib.util
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
    lines = path.read_text(encoding="utf-8").split("\n")
    return [Question(**json.loads(line)) for line in lines if line.strip()]


def package_of(module: str, folder: Path) -> str:
    """The package that lies in an expert's `folder`: `module`, where the function is that returns
    the folder, or one below it. Raises ModuleNotFoundError."""
    for name in (module, f"{module}.{folder.name}"):
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        places = spec.submodule_search_locations if spec is not None else None
        if any(Path(place).resolve() == folder.resolve() for place in places or ()):
            return name
    raise ModuleNotFoundError(f"no package lies in {folder}", name=module)


def scorer(package: str) -> IsCorrect:
    """`is_correct` of the module `answers` in an expert's package."""
    found: IsCorrect = importlib.import_module(f"{package}.answers").is_correct
    return found
