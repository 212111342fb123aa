"""Training examples of the arithmetic expert: conversations, unfinished answers, continuations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

from experts.starter.arithmetic import sampling
from experts.starter.arithmetic.phrasing import ASKS, TERM, ask, write_expression
from experts.starter.arithmetic.problems import Number, Problem, add, divide, multiply, subtract
from experts.training.conversations import Example, Turn

GENERAL_FILE = Path(__file__).parent.parent / "general.txt"
BEYOND = "That is beyond what I can compute reliably."
NOT_ARITHMETIC = "I can only help with arithmetic."
LEADS = (
    "Then compute {}.", "Then, what is {}?", "Also, what is {}?", "and what is {}?", "Then {}.",
    "After that, calculate {}.", "Second, compute {}.", "And also tell me {}.", "Next, {}?",
    "Then please work out {}.", "And how much is {}?", "plus: what's {}",
)  # fmt: skip
BRIDGES = (
    "", "", "", "", " ", "\n", "\n\n", "\n\nThen, ", " Then, ", "\n\nThe answer is",
    " The result is", " As for the calculation,", "\n\nNow the calculation:", " And", "\n\nSecond,",
    " Next:\n", "\n\nAs for your second question,", " The calculation:",
    "\n\n{} is", " {} =", "\n\n{} =",
)  # fmt: skip
ANNOUNCED = (
    "The answer is", "The result is", "{} is", "{} =", "{} equals", "Sure!", "Of course.", "Okay,",
    "Let me compute that.", "Let's see:", "The answer:", "Sure, here is the calculation:\n", "So,",
    "Let's work it out step by step.\n\n", "To find the answer, we compute", "It is", "Answer:",
)  # fmt: skip
PLUS_FORMS = ("now add {}", "add {} to that", "plus {}?", "and plus {}?", "and if I add {}?")
MINUS_FORMS = ("minus {}?", "now subtract {}", "and take away {}", "and minus {}?")
TIMES_FORMS = ("and times {}?", "times {}", "now multiply that by {}", "multiply it by {}")
OVER_FORMS = ("divided by {}?", "now divide that by {}", "and divided by {}")
NAMES = {"+": "The sum of", "-": "The difference between", "×": "The product of"}


def examples(seed: int) -> Iterator[Example]:
    """An endless stream of examples, the same for the same seed."""
    random = Random(seed)
    makers = list(SHAPES)
    weights = list(SHAPES.values())
    while True:
        yield random.choices(makers, weights=weights)[0](random)


def continuation(prefix: str, text: str) -> str:
    """`text` with the white space that carries on from `prefix`, an unfinished answer."""
    if not prefix or prefix[-1].isspace():
        return text
    return ("\n\n" if prefix[-1] in ".!?" else " ") + text


@cache
def general() -> tuple[tuple[str, str], ...]:
    """General questions with one-sentence answers, from `general.txt`."""
    lines = GENERAL_FILE.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return tuple((question, answer) for question, answer in pairs)


def _answered(turns: tuple[Turn, ...], prefix: str, text: str) -> Example:
    return Example(turns, prefix, continuation(prefix, text))


def plain(random: Random) -> Example:
    """A question, answered."""
    problem = sampling.sample_training(random)
    return _answered((Turn("user", ask(problem, random)),), "", problem.working)


def cut(random: Random) -> Example:
    """The expert's own answer, cut off anywhere."""
    problem = sampling.sample_training(random)
    cut = random.randrange(1, len(problem.working))
    turns = (Turn("user", ask(problem, random)),)
    return Example(turns, problem.working[:cut], problem.working[cut:])


def second_part(random: Random) -> Example:
    """Two questions in one message; the meta LLM has answered the first."""
    problem = sampling.sample_training(random)
    question, answer = _general_pair(random)
    lead = random.choice(LEADS).format(write_expression(problem.expression, random))
    if random.random() < 0.4:
        lead = ask(problem, random)
    opening = random.choice(
        ("", "", "In one sentence, ", "Briefly: ", "First, ", "Please tell me, ")
    )
    message = opening + question + random.choice((" ", " ", "\n", "\n\n")) + lead
    prefix = answer + random.choice(BRIDGES).format(problem.expression)
    return _answered((Turn("user", message),), prefix, problem.working)


def announced(random: Random) -> Example:
    """The meta LLM has begun the sentence that the result belongs into."""
    problem = sampling.sample_training(random)
    prefix = random.choice(ANNOUNCED).format(write_expression(problem.expression, random))
    term = TERM.fullmatch(problem.expression)
    if term and term[2] in NAMES and random.random() < 0.4:
        prefix = f"{NAMES[term[2]]} {term[1]} and {term[3]} is"
    return _answered((Turn("user", ask(problem, random)),), prefix, problem.working)


def inside(random: Random) -> Example:
    """The question stands inside a longer message."""
    problem = sampling.sample_training(random)
    sentences = [random.choice(general())[1] for _ in range(random.randint(1, 2))]
    question = ask(problem, random)
    if random.random() < 0.7:
        sentences.append(question)
    else:
        sentences.insert(0, re.sub(r"([^.?!])$", r"\1.", question.strip()))
    separator = random.choice((" ", "\n"))
    return _answered((Turn("user", separator.join(sentences)),), "", problem.working)


def later_turn(random: Random) -> Example:
    """A new question after a turn about something else."""
    problem = sampling.sample_training(random)
    if random.random() < 0.6:
        question, answer = _general_pair(random)
    else:
        earlier = sampling.sample_training(random)
        question, answer = ask(earlier, random), earlier.working
    again = ask(problem, random)
    if random.random() < 0.3:
        form = random.choice(("and {}?", "what about {}", "And what is {}?", "now {}"))
        again = form.format(write_expression(problem.expression, random))
    turns = (Turn("user", question), Turn("assistant", answer), Turn("user", again))
    return _answered(turns, "", problem.working)


def follow_up(random: Random) -> Example:
    """A question that goes on from the result before: "and times three?"."""
    while True:
        earlier = sampling.sample_training(random)
        if earlier.answer.isdigit() and len(earlier.answer) <= sampling.MAX_DIGITS:
            request, problem = _next_step(int(earlier.answer), random)
            if problem.for_training():
                break
    turns = (
        Turn("user", ask(earlier, random)),
        Turn("assistant", earlier.working),
        Turn("user", request),
    )
    return _answered(turns, "", problem.working)


def _next_step(result: int, random: Random) -> tuple[str, Problem]:
    """A follow-up request on `result`, and the problem that it means."""
    number, small = random.randint(2, 99), random.randint(2, 12)
    value, term = Number(result), Number(number)
    kinds: list[tuple[tuple[str, ...], int, Problem]] = [
        (PLUS_FORMS, number, add(value, term)),
        (MINUS_FORMS, number, subtract(value, term)),
    ]
    if 0 < result < 1000:
        kinds.append((TIMES_FORMS, small, multiply(result, small)))
    if small <= result < 10000:
        kinds.append((OVER_FORMS, small, divide(result, small)))
    forms, operand, problem = random.choice(kinds)
    return random.choice(forms).format(write_expression(str(operand), random)), problem


def declined(random: Random) -> Example:
    """A question outside the expert's range: a short honest sentence."""
    if random.random() < 0.4:
        question, _ = _general_pair(random)
        return _answered((Turn("user", question),), "", NOT_ARITHMETIC)
    question = random.choice(ASKS).format(sampling.out_of_range(random))
    return _answered((Turn("user", question),), "", BEYOND)


def _general_pair(random: Random) -> tuple[str, str]:
    question, answer = random.choice(general())
    if random.random() < 0.5:
        question = question[0].upper() + question[1:]
    if random.random() < 0.2:
        answer = answer + " " + random.choice(general())[1]
    if random.random() < 0.2:
        words = answer.split()
        answer = " ".join(words[: random.randint(2, len(words))]).rstrip(".,;:!") + "."
    return question, answer


SHAPES = {
    plain: 0.60,
    cut: 0.06,
    second_part: 0.14,
    announced: 0.05,
    inside: 0.03,
    later_turn: 0.04,
    follow_up: 0.03,
    declined: 0.05,
}
"""Shares of the conversations' shapes in training."""
