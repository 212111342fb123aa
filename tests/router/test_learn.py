"""What is encoded for an expert, and learned from it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from router.encode import Messages
from router.framing import framed
from router.general import General
from router.head import Background, Floats
from router.learn import MAX_RIVAL_EXAMPLES, Learned, Other, learn_row, learn_together, split

SIZE = 48


class Words:
    """An encoder whose features are bags of words."""

    fingerprint, hidden_size = "words", SIZE

    def __init__(self) -> None:
        self.asked: list[Messages] = []

    async def states(
        self, prompts: Sequence[Messages], progress: Callable[[int], None] = lambda done: None
    ) -> Floats:
        self.asked += prompts
        rows = [_text(prompt) for prompt in prompts]
        return np.stack(rows) if rows else np.empty((0, SIZE), np.float32)


def _bag(text: str) -> Floats:
    words = [word.strip(".,?!").lower() for word in text.split()]
    rows = [np.random.default_rng(zlib.crc32(word.encode())).normal(size=SIZE) for word in words]
    bag: Floats = (np.sum(rows, axis=0) / len(rows) ** 0.5).astype(np.float32)
    return bag


def _text(prompt: Messages) -> Floats:
    return _bag(" ".join(turn["content"] for turn in prompt))


def ask(text: str) -> Messages:
    return [{"role": "user", "content": text}]


CHAT = [f"{a} {b} please" for a in ("tell", "write", "sing") for b in ("stories", "songs", "jokes")]
SUMS = [ask(f"compute {a} plus {b}") for a in range(5) for b in range(5)]
STARS = [ask(f"observe star {name} tonight") for name in "abcdefghijklmnopqrstuvwxy"]


NEAR = (
    "explain planet {}",
    "observe galaxy {} tonight",
    "cook {} with rice",
    "compute {} times {}",
)
"""Of no known subject, and of three."""


@pytest.fixture(autouse=True)
def general(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shipped for the encoder above."""
    start = np.stack([_bag(f"{text} {n}") for text in CHAT for n in range(10)])
    asked = [text.format(n, n) for text in NEAR for n in range(20)]
    near = np.stack([_bag(text) for text in asked])
    framed_of = np.arange(20, 80, 2)
    put = np.stack([_text(framed(ask(asked[place]), n)) for n, place in enumerate(framed_of)])
    subject = np.repeat(np.arange(len(NEAR)), 20)
    topics = np.zeros((6, SIZE), np.float32)
    found = General(start, near, subject, put, framed_of, start[:20], topics, OPENINGS)
    monkeypatch.setattr("router.learn.shipped_general", lambda fingerprint: found)


OPENINGS = tuple((text, f"An answer to {text}.") for text in CHAT)


async def learn(
    examples: Sequence[Messages],
    others: Sequence[Other] = (),
    counter: Sequence[Messages] = (),
) -> Learned:
    encoder: Any = Words()
    return await learn_row(encoder, "sums", examples, others, counter)


def scores(
    learned: Learned, prompts: Sequence[Messages], background: Background | None = None
) -> Floats:
    features = np.stack([_bag(p[-1]["content"]) for p in prompts])
    own = learned.row.scores("start", features)
    return own if background is None else own - background.log_odds(features)


async def test_a_row_is_learned_and_some_examples_are_kept_back() -> None:
    learned = await learn(SUMS)
    assert len(learned.held_out) == 5
    assert (scores(learned, learned.held_out) > 0).mean() >= 0.6, "words alone hardly tell it"
    assert (scores(learned, [ask("sing a song please"), *STARS]) < 0).mean() > 0.9


async def test_words_around_a_query_do_not_speak_for_the_expert() -> None:
    learned = await learn(SUMS)
    chat = np.stack([_text(framed(ask(text), n)) for n, text in enumerate(CHAT * 3)])
    sums = np.stack([_text(framed(query, n)) for n, query in enumerate(SUMS)])
    assert (learned.row.scores("start", chat) > 0).mean() < 0.1
    assert (learned.row.scores("start", sums) > 0).mean() >= 0.5


async def test_counter_examples_are_told_apart() -> None:
    counter = [ask(f"compute {word} minus {n}") for word in ("day", "week") for n in range(10)]
    unseen = [ask(f"compute {word} minus {n}") for word in ("day", "week") for n in range(10, 15)]
    plain, told = await learn(SUMS), await learn(SUMS, counter=counter)
    assert (scores(told, unseen) > 0).mean() <= 0.1
    assert scores(told, unseen).mean() < scores(plain, unseen).mean()


async def test_after_the_first_part_of_a_question_it_is_the_experts_turn() -> None:
    encoder: Any = Words()
    await learn_row(encoder, "sums", SUMS, ())
    asked = [prompt for prompt in encoder.asked if len(prompt) == 2]
    assert asked
    for question, opening in asked:
        assert "compute" in question["content"]
        assert opening["content"].startswith("An answer to ")
        assert ask(question["content"]) in encoder.asked


async def test_only_some_of_the_others_examples_are_encoded() -> None:
    encoder: Any = Words()
    many = [ask(f"observe {n}") for n in range(400)]
    await learn_row(encoder, "sums", SUMS, [Other(many, None)])
    theirs = sum(prompt[0]["content"].startswith("observe") for prompt in encoder.asked)
    assert 0.8 * MAX_RIVAL_EXAMPLES < theirs <= MAX_RIVAL_EXAMPLES


async def test_rows_learned_together_tell_all_experts_apart() -> None:
    encoder: Any = Words()
    sums, stars = await learn(SUMS), await learn(STARS)
    before = {"sums": sums.row, "stars": stars.row}
    together = await learn_together(encoder, {"sums": SUMS, "stars": STARS}, before)
    learned, kinds = together.experts, together.background
    assert list(learned) == ["sums", "stars"]
    pairs = {"sums": (SUMS, "stars"), "stars": (STARS, "sums")}
    for name, (own, other) in pairs.items():
        mine, others = scores(learned[name], own, kinds), scores(learned[other], own, kinds)
        assert ((mine > 0) & (mine > others)).mean() > 0.9
        assert np.array_equal(learned[name].row.weights[1:], before[name].weights[1:])
        assert learned[name].held_out == tuple(split(own)[1])


async def test_rows_learned_together_mind_counter_examples() -> None:
    encoder: Any = Words()
    rows = {"sums": (await learn(SUMS)).row, "stars": (await learn(STARS)).row}
    counter = [ask(f"compute the tide minus {n}") for n in range(20)]
    together = await learn_together(encoder, {"sums": SUMS, "stars": STARS}, rows, counter)
    assert (scores(together.experts["sums"], counter, together.background) > 0).mean() <= 0.1


async def test_other_subjects_are_kinds_of_their_own_and_an_experts_own_is_none() -> None:
    encoder: Any = Words()
    rows = {"sums": (await learn(SUMS)).row, "stars": (await learn(STARS)).row}
    together = await learn_together(encoder, {"sums": SUMS, "stars": STARS}, rows)
    dishes = [ask(f"cook {n} with rice") for n in range(30, 50)]
    for learned in together.experts.values():
        assert (scores(learned, dishes, together.background) > 0).mean() <= 0.1
    assert len(together.background.bias) == 3, "cooking, general traffic, and questions in parts"
