"""Writes the files of questions beside this module: `evaluation.jsonl` and `examples.jsonl`.

`python -m experts.starter.chemistry.questions` gives the same files every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from experts.starter.chemistry import sampling
from experts.starter.chemistry.answers import UNKNOWN as UNKNOWN_ANSWER
from experts.starter.chemistry.data import SUBJECT, beyond, conversation, item_of, kept_wording
from experts.starter.chemistry.facts import facts
from experts.starter.chemistry.phrasing import OF_ELEMENT, ask
from experts.starter.chemistry.problems import Kind
from experts.starter.question_files import Line, asked, in_conversation, question, write_files

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
UNKNOWN, DECLINED, FOLLOW_UPS = 30, 30, 90
EXAMPLES = 200


def evaluation() -> Iterator[Line]:
    """620 questions with answers, none of which a training conversation contains."""
    random, seen = Random(EVALUATION_SEED), set()
    for operation, number in _plan():
        while (line := _draw(random, operation, number)) is None or str(line) in seen:
            pass
        seen.add(str(line))
        yield line


def _plan() -> Iterator[tuple[str, int]]:
    for operation, (_, unseen, others) in EVALUATION.items():
        yield from ((operation, number) for number in range(unseen + others))
    yield from (("unknown", number) for number in range(UNKNOWN))
    yield from (("declined", number) for number in range(DECLINED))
    yield from (("follow-up", number) for number in range(FOLLOW_UPS))


def _draw(random: Random, operation: str, number: int) -> Line | None:
    """A question that is kept for evaluation, or None if the one that was drawn is not."""
    if operation == "follow-up":
        return _follow_up(random)
    if operation == "declined":
        asked = beyond(random).question
        return question([asked], UNKNOWN_ANSWER, operation) if kept_wording(asked) else None
    if operation == "unknown":
        problem, unseen = sampling.unknown(random), False
    else:
        kinds, first, _ = EVALUATION[operation]
        problem, unseen = sampling.sample(random, random.choice(kinds)), number < first
    text = ask(problem, random)
    known = problem.compound is not None and problem.compound.name in facts().compounds
    kept = known if unseen else kept_wording(text)
    if problem.for_evaluation() != unseen or not kept:
        return None
    return question([text], problem.answer, operation)


def _follow_up(random: Random) -> Line | None:
    first, later, request = conversation(random)
    earlier = item_of(first, random)
    if not kept_wording(earlier.question, request):
        return None
    return question([earlier.question, earlier.answer, request], later.answer, "follow-up")


def examples() -> Iterator[Line]:
    """252 queries for fitting the expert's token, 200 of them single questions."""
    random = Random(EXAMPLES_SEED)
    kinds = list(sampling.MIX)
    weighted: list[Kind] = [*kinds, "formula", "name", "molar mass", "molar mass", "oxidation"]
    for number in range(EXAMPLES):
        problem = sampling.sample_training(random, weighted[number % len(weighted)])
        yield asked(ask(problem, random))
    yield from in_conversation(SUBJECT, random)


def main() -> None:
    """Write both files."""
    write_files(FOLDER, evaluation(), examples())


if __name__ == "__main__":
    main()
