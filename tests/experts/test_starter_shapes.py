"""Shapes of conversations: what a subject's questions become."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

import pytest

from experts.starter import shapes
from experts.starter.shapes import SHAPES, Item, Subject, continuation


def draw(random: Random) -> Item:
    number = random.randrange(100)
    return Item(f"Say {number}!", f"It is {number}.", str(number), (f"{number} is",))


def follow_up(random: Random) -> tuple[Item, Item]:
    return draw(random), Item("And again?", "The same.")


def out_of_range(random: Random) -> Item:
    return Item("Say infinity!", "I cannot.")


SUBJECT = Subject(draw, follow_up, out_of_range, "I only say numbers.")


def test_a_stream_is_the_same_for_the_same_seed() -> None:
    stream = shapes.examples(SUBJECT)
    first = list(islice(stream(3), 300))
    assert first == list(islice(stream(3), 300))
    assert first != list(islice(stream(4), 300))


def test_every_shape_asks_and_is_answered() -> None:
    answers = Counter()
    for name, (shape, _) in SHAPES.items():
        random = Random(name)
        for _ in range(50):
            example = shape(SUBJECT, random)
            assert [turn.role for turn in example.turns[::2]] == ["user"] * len(example.turns[::2])
            whole = (example.prefix + example.target).strip()
            assert whole.endswith(("is", "The same.", "I cannot.", "I only say numbers.", ".")), (
                whole
            )
            answers[name, whole.rpartition(" ")[2]] += 1
    assert answers["declined", "cannot."] > 10
    assert answers["declined", "numbers."] > 10
    assert answers["follow_up", "same."] == 50


def test_shares_can_be_changed() -> None:
    only = dict.fromkeys(SHAPES, 0.0) | {"declined": 1.0}
    stream = shapes.examples(Subject(draw, follow_up, out_of_range, "No.", weights=only))
    assert {example.target for example in islice(stream(0), 50)} == {"No.", "I cannot."}


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", "1"),
        ("A fox is a mammal.", "\n\n1"),
        ("A fox is a mammal.\n\n", "1"),
        ("Then, ", "1"),
        ("The sum is", " 1"),
        ("4821 + 3977 =", " 1"),
    ],
)
def test_continuations_begin_with_the_right_space(prefix: str, expected: str) -> None:
    assert continuation(prefix, "1") == expected
