"""Writes the files of questions beside this module: `evaluation.jsonl` and `examples.jsonl`.

`python -m experts.starter.geography.questions` gives the same files every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

from experts.starter.geography import follow_ups, sampling
from experts.starter.geography.data import SUBJECT
from experts.starter.geography.phrasing import normalised
from experts.starter.geography.sampling import Question
from experts.starter.geography.statements import DIRECT, REVERSE, Kind
from experts.starter.question_files import Line, asked, in_conversation, question, write_files

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


def evaluation() -> Iterator[Line]:
    """680 questions with answers, none of which a training example asks.

    The facts are those of training; the wordings of the questions about them are not. "unknown":
    what does not exist, or is no country.
    """
    random = Random(EVALUATION_SEED)
    seen: set[str] = set()
    for kind, count in EVALUATION_COUNTS.items():
        for _ in range(count):
            yield _line((_kept(partial(sampling.sample_kind, kind, random), seen),), kind)
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
        drawn = sample()
        text = normalised(drawn.text)
        if drawn.kept and text not in seen:
            seen.add(text)
            return drawn


def _line(questions: tuple[Question, ...], operation: str) -> Line:
    texts = [text for q in questions for text in (q.item.question, q.item.answer)][:-1]
    return question(texts, questions[-1].statement.expected, operation)


def examples() -> Iterator[Line]:
    """176 queries for fitting the expert's token: 116 questions about what is known, 8 about what
    is not, and others in conversations."""
    random = Random(EXAMPLES_SEED)
    kinds = (*DIRECT, *REVERSE, "borders")
    for number in range(116):
        yield _asked(partial(sampling.sample_kind, kinds[number % len(kinds)], random))
    for _ in range(8):
        yield _asked(partial(sampling.sample_unknown, random))
    yield from in_conversation(SUBJECT, random)


def _asked(sample: Callable[[], Question]) -> Line:
    while (drawn := sample()).kept:
        pass
    return asked(drawn.item.question)


def main() -> None:
    """Write both files."""
    write_files(FOLDER, evaluation(), examples())


if __name__ == "__main__":
    main()
