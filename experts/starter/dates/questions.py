"""Writes the files of questions beside this module: `evaluation.jsonl` and `examples.jsonl`.

`python -m experts.starter.dates.questions` gives the same files every time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from experts.starter.dates import limits, sampling
from experts.starter.dates.data import SUBJECT
from experts.starter.dates.follow_ups import draw_pair
from experts.starter.dates.problems import Operation
from experts.starter.shapes import follow_up, second_part
from experts.training.conversations import Example

FOLDER = Path(__file__).parent
EVALUATION_SEED, EXAMPLES_SEED = 20_261_123, 7
EVALUATION_COUNTS: dict[Operation, int] = {
    "weekday": 80,
    "leap year": 30,
    "day of the year": 60,
    "ISO week": 60,
    "adding": 80,
    "between": 60,
    "time zone": 60,
    "cron to English": 40,
    "English to cron": 40,
}
FOLLOW_UPS, DECLINED = 90, 40


def evaluation() -> Iterator[dict[str, Any]]:
    """640 questions with answers, about problems that no training example contains."""
    random = Random(EVALUATION_SEED)
    for operation, count in EVALUATION_COUNTS.items():
        seen: set[str] = set()
        while len(seen) < count:
            case = sampling.sample_evaluation(random, operation)
            if case.problem.request not in seen:
                seen.add(case.problem.request)
                question = case.item(random).question
                yield _line([question], case.problem.answer, operation)
    yield from _follow_ups(random)
    yield from _declined(random)


def _follow_ups(random: Random) -> Iterator[dict[str, Any]]:
    """The second question's problem is one that no training example contains."""
    count = 0
    while count < FOLLOW_UPS:
        case, question, problem = draw_pair(random)
        if problem.for_evaluation:
            earlier = case.item(random)
            yield _line([earlier.question, earlier.answer, question], problem.answer, "follow-up")
            count += 1


def _declined(random: Random) -> Iterator[dict[str, Any]]:
    """Questions outside the expert's range; the sentence that declines is the answer."""
    seen: set[str] = set()
    while len(seen) < DECLINED:
        item = limits.out_of_range(random)
        if limits.for_evaluation(item) and item.question not in seen:
            seen.add(item.question)
            yield _line([item.question], item.answer, "declined")


def examples() -> Iterator[dict[str, Any]]:
    """180 queries for fitting the expert's token: 148 questions, 12 that are declined, 12 answers
    to be carried on, 8 follow-ups."""
    random = Random(EXAMPLES_SEED)
    operations = list(EVALUATION_COUNTS)
    for number in range(148):
        case = sampling.sample_training(random, operations[number % len(operations)])
        yield {"messages": _turns([case.item(random).question])}
    for _ in range(12):
        yield {"messages": _turns([SUBJECT.out_of_range(random).question])}
    for _ in range(12):
        yield _messages(second_part(SUBJECT, random))
    for _ in range(8):
        yield _messages(follow_up(SUBJECT, random))


def _line(contents: list[str], answer: str, operation: str) -> dict[str, Any]:
    return {"messages": _turns(contents), "answer": answer, "operation": operation}


def _turns(contents: list[str]) -> list[dict[str, str]]:
    """Turns that alternate, the user's first."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


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
