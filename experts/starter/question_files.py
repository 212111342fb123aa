"""The files of questions in an expert's folder: those that measure it, and those that teach the
meta LLM when to call it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from experts.starter.evaluation import FILE
from experts.starter.shapes import Subject, follow_up, later_turn, second_part

EXAMPLES_FILE = "examples.jsonl"
IN_CONVERSATION = {later_turn: 32, second_part: 12, follow_up: 8}
"""How many examples are no single questions: questions after an exchange about something else,
answers to be carried on, follow-ups."""

Line = dict[str, Any]


def asked(*texts: str) -> Line:
    """A conversation that ends with a user's turn: user and assistant in turn, the user first."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]}


def question(texts: Sequence[str], answer: str, operation: str) -> Line:
    """A line of the evaluation set (`evaluation.Question`)."""
    return {**asked(*texts), "answer": answer, "operation": operation}


def in_conversation(subject: Subject, random: Random) -> Iterator[Line]:
    """The last 52 examples; an answer to be carried on ends in an assistant's turn."""
    for shape, count in IN_CONVERSATION.items():
        for _ in range(count):
            example = shape(subject, random)
            texts = [turn.content for turn in example.turns]
            yield asked(*texts, *([example.prefix] if example.prefix else []))


def write_files(folder: Path, evaluation: Iterable[Line], examples: Iterable[Line]) -> None:
    """Write both files."""
    for name, lines in ((FILE, evaluation), (EXAMPLES_FILE, examples)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / name).write_text(text, encoding="utf-8")
