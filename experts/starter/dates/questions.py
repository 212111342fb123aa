"""Writes the files of questions beside this module: `evaluation.jsonl` and `examples.jsonl`.

`python -m experts.starter.dates.questions` gives the same files every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from experts.starter.dates import limits, sampling
from experts.starter.dates.data import SUBJECT
from experts.starter.dates.follow_ups import draw_pair
from experts.starter.dates.problems import Operation
from experts.starter.question_files import Line, asked, in_conversation, question, write_files

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


def evaluation() -> Iterator[Line]:
    """640 questions with answers, about problems that no training example contains."""
    random = Random(EVALUATION_SEED)
    for operation, count in EVALUATION_COUNTS.items():
        seen: set[str] = set()
        while len(seen) < count:
            case = sampling.sample_evaluation(random, operation)
            if case.problem.request not in seen:
                seen.add(case.problem.request)
                yield question([case.item(random).question], case.problem.answer, operation)
    yield from _follow_ups(random)
    yield from _declined(random)


def _follow_ups(random: Random) -> Iterator[Line]:
    """The second question's problem is one that no training example contains."""
    count = 0
    while count < FOLLOW_UPS:
        case, request, problem = draw_pair(random)
        if problem.for_evaluation:
            earlier = case.item(random)
            texts = earlier.question, earlier.answer, request
            yield question(texts, problem.answer, "follow-up")
            count += 1


def _declined(random: Random) -> Iterator[Line]:
    """Questions outside the expert's range; the sentence that declines is the answer."""
    seen: set[str] = set()
    while len(seen) < DECLINED:
        item = limits.out_of_range(random)
        if limits.for_evaluation(item) and item.question not in seen:
            seen.add(item.question)
            yield question([item.question], item.answer.split("\n")[-1], "declined")


def examples() -> Iterator[Line]:
    """180 queries for fitting the expert's token: 116 single questions, 12 that are declined, and
    others in conversations."""
    random = Random(EXAMPLES_SEED)
    operations = list(EVALUATION_COUNTS)
    for number in range(116):
        case = sampling.sample_training(random, operations[number % len(operations)])
        yield asked(case.item(random).question)
    for _ in range(12):
        yield asked(SUBJECT.out_of_range(random).question)
    yield from in_conversation(SUBJECT, random)


def main() -> None:
    """Write both files."""
    write_files(FOLDER, evaluation(), examples())


if __name__ == "__main__":
    main()
