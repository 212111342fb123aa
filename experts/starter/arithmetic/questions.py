"""Writes the files of questions beside this module: `evaluation.jsonl` and `examples.jsonl`.

`python -m experts.starter.arithmetic.questions` gives the same files every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from experts.starter.arithmetic import beyond, sampling
from experts.starter.arithmetic.data import BEYOND, SUBJECT
from experts.starter.arithmetic.phrasing import ASKS, ask
from experts.starter.arithmetic.problems import Operation, Problem
from experts.starter.question_files import Line, asked, in_conversation, question, write_files

FOLDER = Path(__file__).parent
EVALUATION_SEED, EXAMPLES_SEED = 20_261_122, 8
EVALUATION_COUNTS: dict[Operation, int] = {
    "addition": 110,
    "subtraction": 110,
    "decimals": 80,
    "multiplication": 80,
    "decimal product": 40,
    "division": 80,
    "percentage": 60,
    "percent change": 40,
    "two-step": 60,
    "chain": 50,
    "negative": 40,
}
FOLLOW_UPS = 80
DECLINED = 40


def evaluation() -> Iterator[Line]:
    """870 questions with answers, about problems that no training example contains."""
    random = Random(EVALUATION_SEED)
    for operation, count in EVALUATION_COUNTS.items():
        seen: set[str] = set()
        while len(seen) < count:
            problem = sampling.sample_evaluation(random, operation)
            if problem.expression not in seen:
                seen.add(problem.expression)
                yield question([ask(problem, random)], problem.answer, operation)
    for _ in range(FOLLOW_UPS):
        earlier, request, problem = sampling.sample_follow_up(random, Problem.for_evaluation)
        texts = ask(earlier, random), earlier.working, request
        yield question(texts, problem.answer, "follow-up")
    declined: set[str] = set()
    while len(declined) < DECLINED:
        asked_for = beyond.out_of_range(random, kept=True)
        if asked_for not in declined:
            declined.add(asked_for)
            yield question([random.choice(ASKS).format(asked_for)], BEYOND, "declined")


def examples() -> Iterator[Line]:
    """180 queries for fitting the expert's token, 128 of them single questions."""
    random = Random(EXAMPLES_SEED)
    operations = list(EVALUATION_COUNTS)
    for number in range(128):
        problem = sampling.sample_training(random, operations[number % len(operations)])
        yield asked(ask(problem, random))
    yield from in_conversation(SUBJECT, random)


def main() -> None:
    """Write both files."""
    write_files(FOLDER, evaluation(), examples())


if __name__ == "__main__":
    main()
