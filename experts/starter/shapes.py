"""Shapes of conversations that every starter expert is taught: from a subject's questions and
answers to training examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random

from experts.training.conversations import Example, Turn

GENERAL_FILE = Path(__file__).parent / "general.txt"
LEADS = (
    "Then compute {}.", "Then, what is {}?", "Also, what is {}?", "and what is {}?", "Then {}.",
    "After that, calculate {}.", "Second, compute {}.", "And also tell me {}.", "Next, {}?",
    "Then please work out {}.", "And how much is {}?", "plus: what's {}",
)  # fmt: skip
BRIDGES = (
    "", "", "", "", " ", "\n", "\n\n", "\n\nThen, ", " Then, ", "\n\nThe answer is",
    " The result is", " As for the second part,", "\n\nNow the other question:", " And",
    "\n\nSecond,", " Next:\n", "\n\nAs for your second question,", " The rest:",
)  # fmt: skip
OPENINGS = ("", "", "In one sentence, ", "Briefly: ", "First, ", "Please tell me, ")
ANNOUNCED = (
    "The answer is", "The result is", "Sure!", "Of course.", "Okay,", "Let me see.",
    "Let's see:", "The answer:", "Sure, here you are:\n", "So,", "Let's work it out step by step."
    "\n\n", "To answer this,", "It is", "Answer:", "Certainly! ", "Here is",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A question as a person types it, and the expert's answer.

    `short` is what is asked for, as a noun phrase or an expression, where the question has one:
    "4821 + 3977", "the capital of France". Openings of the answer that hold it, such as
    "{} =", are `begun`: prefixes after which `answer` still goes on as it stands.
    `brief`, if there is one, takes the answer's place within a sentence: "The answer is" "Paris."
    """

    question: str
    answer: str
    short: str = ""
    begun: tuple[str, ...] = ()
    brief: str = ""

    def after(self, prefix: str) -> str:
        """What answers the question after `prefix`, an unfinished answer."""
        within = prefix.rstrip(" ")[-1:] not in ("", ".", "!", "?", "\n")
        return self.brief if within and self.brief else self.answer


Draw = Callable[[Random], Item]


@dataclass(frozen=True)
class Subject:
    """What an expert is taught. All draws come from the training part of its problems."""

    draw: Draw
    """A question within range."""
    follow_up: Callable[[Random], tuple[Item, Item]]
    """A question, and a later one that only makes sense after it."""
    out_of_range: Draw
    """A question of the subject that is politely declined."""
    not_mine: str
    """The answer to what belongs to another subject."""
    short_forms: tuple[str, ...] = ("and {}?", "what about {}", "And what is {}?", "now {}")
    """Later turns that hold only `Item.short`."""
    leads: tuple[str, ...] = LEADS
    """Second parts of a message that hold `Item.short`."""
    others: tuple[str, ...] = ()
    """Questions of the other starter experts, declined with `not_mine`."""
    weights: dict[str, float] = field(default_factory=dict)
    """Shares of shapes that differ from `SHAPES`."""
    declined_anywhere: float = 0.0
    """In training, the share of what is declined where a question within range could stand: also as
    a second part, or later in a conversation."""

    def in_training(self) -> Subject:
        """With draws that are declined now and then."""
        share = self.declined_anywhere
        if not share:
            return self

        def draw(random: Random) -> Item:
            return (self.out_of_range if random.random() < share else self.draw)(random)

        return replace(self, draw=draw)


def examples(subject: Subject) -> Callable[[int], Iterator[Example]]:
    """For each seed an endless stream of examples, the same for the same seed."""
    shares = {SHAPES[name][0]: share for name, share in weights(subject).items()}
    subject = subject.in_training()

    def stream(seed: int) -> Iterator[Example]:
        random = Random(seed)
        while True:
            shape = random.choices(list(shares), weights=list(shares.values()))[0]
            yield shape(subject, random)

    return stream


def weights(subject: Subject) -> dict[str, float]:
    """The shares of the shapes for this subject; they need not sum to 1."""
    return {name: share for name, (_, share) in SHAPES.items()} | subject.weights


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


def plain(subject: Subject, random: Random) -> Example:
    """A question, answered."""
    item = subject.draw(random)
    return _answered((Turn("user", item.question),), "", item.answer)


def cut(subject: Subject, random: Random) -> Example:
    """The expert's own answer, cut off anywhere."""
    item = subject.draw(random)
    end = random.randrange(1, len(item.answer))
    return Example((Turn("user", item.question),), item.answer[:end], item.answer[end:])


def second_part(subject: Subject, random: Random) -> Example:
    """Two questions in one message; the meta LLM has answered the first."""
    item = subject.draw(random)
    question, answer = _general_pair(random)
    lead = item.question
    if item.short and random.random() < 0.6:
        lead = random.choice(subject.leads).format(item.short)
    separator = random.choice((" ", " ", "\n", "\n\n"))
    message = random.choice(OPENINGS) + question + separator + lead
    prefix = answer + random.choice((*BRIDGES, *(f"\n\n{text}" for text in item.begun)))
    return _answered((Turn("user", message),), prefix, item.after(prefix))


def announced(subject: Subject, random: Random) -> Example:
    """The meta LLM has begun the sentence that the answer belongs into."""
    item = subject.draw(random)
    own = item.begun and random.random() < 0.5
    prefix = random.choice(item.begun if own else ANNOUNCED)
    return _answered((Turn("user", item.question),), prefix, item.after(prefix))


def inside(subject: Subject, random: Random) -> Example:
    """The question stands inside a longer message."""
    item = subject.draw(random)
    sentences = [random.choice(general())[1] for _ in range(random.randint(1, 2))]
    if random.random() < 0.7:
        sentences.append(item.question)
    else:
        sentences.insert(0, re.sub(r"([^.?!])$", r"\1.", item.question.strip()))
    message = random.choice((" ", "\n")).join(sentences)
    return _answered((Turn("user", message),), "", item.answer)


def later_turn(subject: Subject, random: Random) -> Example:
    """A new question after a turn about something else."""
    item = subject.draw(random)
    if random.random() < 0.6:
        question, answer = _general_pair(random)
    else:
        earlier = subject.draw(random)
        question, answer = earlier.question, earlier.answer
    again = item.question
    if item.short and subject.short_forms and random.random() < 0.3:
        again = random.choice(subject.short_forms).format(item.short)
    turns = (Turn("user", question), Turn("assistant", answer), Turn("user", again))
    return _answered(turns, "", item.answer)


def follow_up(subject: Subject, random: Random) -> Example:
    """A question that makes sense only after the one before: "and times three?"."""
    earlier, item = subject.follow_up(random)
    turns = (
        Turn("user", earlier.question),
        Turn("assistant", earlier.answer),
        Turn("user", item.question),
    )
    return _answered(turns, "", item.answer)


def declined(subject: Subject, random: Random) -> Example:
    """A question outside the expert's range: a short honest sentence."""
    if random.random() < 0.5:
        item = subject.out_of_range(random)
        return _answered((Turn("user", item.question),), "", item.answer)
    question, _ = _general_pair(random)
    if subject.others and random.random() < 0.4:
        question = random.choice(subject.others)
    return _answered((Turn("user", question),), "", subject.not_mine)


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


Shape = Callable[[Subject, Random], Example]
SHAPES: dict[str, tuple[Shape, float]] = {
    "plain": (plain, 0.58),
    "cut": (cut, 0.06),
    "second_part": (second_part, 0.13),
    "announced": (announced, 0.05),
    "inside": (inside, 0.03),
    "later_turn": (later_turn, 0.04),
    "follow_up": (follow_up, 0.06),
    "declined": (declined, 0.05),
}
"""The shapes of conversations and their shares in training."""
