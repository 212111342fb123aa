"""Writes the files of questions beside this module: `evaluation.jsonl` and `examples.jsonl`.

`python -m experts.starter.geography.questions` gives the same files every time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from experts.starter.geography import follow_ups, sampling
from experts.starter.geography.data import SUBJECT
from experts.starter.geography.phrasing import normalised
from experts.starter.geography.sampling import Question
from experts.starter.geography.statements import DIRECT, REVERSE, Kind
from experts.starter.shapes import follow_up, second_part
from experts.training.conversations import Example

FOLDER = Path(__file__).parent
EVALUATION_SEED, EXAMPLES_SEED = 20_261_123, 8
EVALUATION_COUNTS: dict[Kind, int] = {
    "capital": 60,
    "currency": 50,
    "codes": 40,
    "calling": 40,
    "domain": 25,
    "continent": 25,
    "neighbours": 50,
    "borders": 50,
    "capital-of": 45,
    "currency-of": 45,
    "code-of": 40,
    "calling-of": 35,
    "domain-of": 25,
}
UNKNOWN, FOLLOW_UPS = 50, 100


def evaluation() -> Iterator[dict[str, Any]]:
    """680 questions with answers, none of which a training example asks.

    The facts are those of training; the wordings of the questions about them are not. "unknown":
    what does not exist, or is no country.
    """
    random = Random(EVALUATION_SEED)
    seen: set[str] = set()
    for kind, count in EVALUATION_COUNTS.items():
        for _ in range(count):
            question = _kept(partial(sampling.sample_kind, kind, random), seen)
            yield _line((question,), kind)
    for _ in range(UNKNOWN):
        yield _line((_kept(partial(sampling.sample_unknown, random), seen),), "unknown")
    for _ in range(FOLLOW_UPS):
        while True:
            earlier, later = follow_ups.sample_any(random)
            if later.kept and not earlier.kept:
                break
        yield _line((earlier, later), "follow-up")


def _kept(sample: Callable[[], Question], seen: set[str]) -> Question:
    """A question that is kept for evaluation and was not seen before."""
    while True:
        question = sample()
        text = normalised(question.text)
        if question.kept and text not in seen:
            seen.add(text)
            return question


def _line(questions: tuple[Question, ...], operation: str) -> dict[str, Any]:
    texts = [text for q in questions for text in (q.item.question, q.item.answer)][:-1]
    return {
        "messages": [
            {"role": "assistant" if number % 2 else "user", "content": text}
            for number, text in enumerate(texts)
        ],
        "answer": questions[-1].statement.expected,
        "operation": operation,
    }


def examples() -> Iterator[dict[str, Any]]:
    """176 queries for fitting the expert's token: 144 questions about what is known, 8 about what
    is not, 12 answers to be carried on, 12 follow-ups."""
    random = Random(EXAMPLES_SEED)
    kinds = (*DIRECT, *REVERSE, "borders")
    for number in range(144):
        yield _asked(partial(sampling.sample_kind, kinds[number % len(kinds)], random))
    for _ in range(8):
        yield _asked(partial(sampling.sample_unknown, random))
    for _ in range(12):
        yield _messages(second_part(SUBJECT, random))
    for _ in range(12):
        yield _messages(follow_up(SUBJECT, random))


def _asked(sample: Callable[[], Question]) -> dict[str, Any]:
    while (question := sample()).kept:
        pass
    return {"messages": [{"role": "user", "content": question.item.question}]}


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
