"""Writes the files of questions beside this module: `evaluation.jsonl` and `examples.jsonl`.

`python -m experts.starter.arithmetic.questions` gives the same files every time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from experts.starter.arithmetic import sampling
from experts.starter.arithmetic.data import SUBJECT
from experts.starter.arithmetic.phrasing import ask
from experts.starter.arithmetic.problems import Operation, Problem
from experts.starter.shapes import follow_up, later_turn, second_part
from experts.training.conversations import Example

FOLDER = Path(__file__).parent
EVALUATION_SEED, EXAMPLES_SEED = 20_261_122, 7
EVALUATION_COUNTS: dict[Operation, int] = {
    "addition": 110,
    "subtraction": 110,
    "decimals": 80,
    "multiplication": 80,
    "division": 80,
    "percentage": 40,
    "two-step": 60,
}
FOLLOW_UPS = 80


def evaluation() -> Iterator[dict[str, Any]]:
    """640 questions with answers, about problems that no training example contains."""
    random = Random(EVALUATION_SEED)
    for operation, count in EVALUATION_COUNTS.items():
        seen: set[str] = set()
        while len(seen) < count:
            problem = sampling.sample_evaluation(random, operation)
            if problem.expression not in seen:
                seen.add(problem.expression)
                yield _question(_turns(ask(problem, random)), problem, operation)
    for _ in range(FOLLOW_UPS):
        earlier, request, problem = sampling.sample_follow_up(random, Problem.for_evaluation)
        turns = _turns(ask(earlier, random), earlier.working, request)
        yield _question(turns, problem, "follow-up")


def _turns(*texts: str) -> list[dict[str, str]]:
    return [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)
    ]


def _question(turns: list[dict[str, str]], problem: Problem, kind: str) -> dict[str, Any]:
    return {"messages": turns, "answer": problem.answer, "operation": kind}


def examples() -> Iterator[dict[str, Any]]:
    """180 queries for fitting the expert's token: 128 questions, 32 after an exchange about
    something else, 12 answers to be carried on, 8 follow-ups."""
    random = Random(EXAMPLES_SEED)
    operations = list(EVALUATION_COUNTS)
    for number in range(128):
        problem = sampling.sample_training(random, operations[number % len(operations)])
        yield {"messages": [{"role": "user", "content": ask(problem, random)}]}
    for _ in range(32):
        yield _messages(later_turn(SUBJECT, random))
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
