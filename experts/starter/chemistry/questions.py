"""Writes the files of questions beside this module: `evaluation.jsonl` and `examples.jsonl`.

`python -m experts.starter.chemistry.questions` gives the same files every time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from experts.starter.chemistry import sampling
from experts.starter.chemistry.data import SUBJECT, conversation, item_of, kept_wording
from experts.starter.chemistry.facts import facts
from experts.starter.chemistry.phrasing import OF_ELEMENT, ask
from experts.starter.chemistry.problems import Kind, Problem
from experts.starter.shapes import follow_up, second_part
from experts.training.conversations import Example

FOLDER = Path(__file__).parent
EVALUATION_SEED, EXAMPLES_SEED = 20_261_123, 7
ELEMENT: tuple[Kind, ...] = ("symbol", *OF_ELEMENT)
ELEMENT_BY: tuple[Kind, ...] = ("element", "by number", "place", "by configuration")
EVALUATION: dict[str, tuple[tuple[Kind, ...], int, int]] = {
    "element": (ELEMENT, 0, 110),
    "element by": (ELEMENT_BY, 0, 50),
    "formula": (("formula",), 30, 40),
    "name": (("name",), 25, 25),
    "ion": (("ion", "charge"), 0, 14),
    "molar mass": (("molar mass",), 50, 60),
    "oxidation": (("oxidation",), 30, 36),
}
"""Operation → kinds; questions about compounds that training does not contain; other questions,
in wordings that training does not contain."""
UNKNOWN, FOLLOW_UPS = 30, 90
EXAMPLES = 156


def evaluation() -> Iterator[dict[str, Any]]:
    """590 questions with answers, none of which a training conversation contains."""
    random, seen = Random(EVALUATION_SEED), set()
    for operation, number in _plan():
        while (question := _draw(random, operation, number)) is None or str(question) in seen:
            pass
        seen.add(str(question))
        yield question


def _plan() -> Iterator[tuple[str, int]]:
    for operation, (_, unseen, others) in EVALUATION.items():
        yield from ((operation, number) for number in range(unseen + others))
    yield from (("unknown", number) for number in range(UNKNOWN))
    yield from (("follow-up", number) for number in range(FOLLOW_UPS))


def _draw(random: Random, operation: str, number: int) -> dict[str, Any] | None:
    """A question that is kept for evaluation, or None if the one that was drawn is not."""
    if operation == "follow-up":
        return _follow_up(random)
    if operation == "unknown":
        problem, unseen = sampling.unknown(random), False
    else:
        kinds, first, _ = EVALUATION[operation]
        problem, unseen = sampling.sample(random, random.choice(kinds)), number < first
    question = ask(problem, random)
    known = problem.compound is not None and problem.compound.name in facts().compounds
    kept = known if unseen else kept_wording(question)
    if problem.for_evaluation() != unseen or not kept:
        return None
    return _question([question], problem, operation)


def _follow_up(random: Random) -> dict[str, Any] | None:
    first, later, question = conversation(random)
    earlier = item_of(first, random)
    if not kept_wording(earlier.question, question):
        return None
    return _question([earlier.question, earlier.answer, question], later, "follow-up")


def _question(texts: list[str], problem: Problem, operation: str) -> dict[str, Any]:
    turns = [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)
    ]
    return {"messages": turns, "answer": problem.answer, "operation": operation}


def examples() -> Iterator[dict[str, Any]]:
    """176 queries for fitting the expert's token: 156 questions, 12 answers to be carried on, 8
    follow-ups."""
    random = Random(EXAMPLES_SEED)
    kinds = list(sampling.MIX)
    weighted: list[Kind] = [*kinds, "formula", "name", "molar mass", "molar mass", "oxidation"]
    for number in range(EXAMPLES):
        problem = sampling.sample_training(random, weighted[number % len(weighted)])
        yield {"messages": [{"role": "user", "content": ask(problem, random)}]}
    for _ in range(12):
        yield _messages(second_part(SUBJECT, random))
    for _ in range(8):
        yield _messages(follow_up(SUBJECT, random))


def _messages(example: Example) -> dict[str, Any]:
    messages = [{"role": turn.role, "content": turn.content} for turn in example.turns]
    if example.prefix:
        messages.append({"role": "assistant", "content": example.prefix})
    return {"messages": messages}


def _write(file: Path, lines: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file.write_text(text, encoding="utf-8")


def main() -> None:
    """Write both files."""
    _write(FOLDER / "evaluation.jsonl", evaluation())
    _write(FOLDER / "examples.jsonl", examples())


if __name__ == "__main__":
    main()
