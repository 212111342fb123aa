"""Learn one expert's row from its example queries: encode, fit, and keep some back to check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from router.background import general_queries, sentence_ends, two_part_questions
from router.encode import Encoder, Messages
from router.fit import States, fit_row, join
from router.head import HeadRow
from router.meta_client import Written

ANSWER_TOKENS = 32
"""How far general and two-part answers are followed."""
GENERAL_PAIRS = 60
TWO_PART = 60
MAX_EXAMPLES = 400
"""More example queries than this no longer change the row; the first ones are taken."""
HELD_OUT = 0.2

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Learned:
    """A fitted row, and the examples it has not seen."""

    row: HeadRow
    held_out: tuple[Messages, ...]


async def learn_row(
    encoder: Encoder,
    examples: Sequence[Messages],
    others: Sequence[Messages],
    say: Progress = lambda text: None,
) -> Learned:
    """Fit the row of an expert.

    `examples` are its queries up to where the answer begins; one that ends in an assistant's
    turn is a place inside an answer. `others` are the other experts' queries. Raises MetaError.
    """
    seen, held_out = split(list(examples)[:MAX_EXAMPLES])
    general = await encode_general(encoder, say)
    say("encoding the example queries")
    own = await _encode_own(encoder, seen)
    say("encoding two-part questions")
    mid, early = await _encode_two_part(encoder, seen)
    say("encoding the other experts' queries")
    related = join([early, *([await _encode_own(encoder, others)] if others else [])])
    say("fitting the row")
    row = await asyncio.to_thread(fit_row, join([own, mid]), related, general)
    return Learned(row, tuple(held_out))


def split(examples: list[Messages]) -> tuple[list[Messages], list[Messages]]:
    """Examples to fit on, and every fifth to check with (only the former if there are few)."""
    step = round(1 / HELD_OUT)
    if len(examples) < 2 * step:
        return examples, []
    held_out = examples[step - 1 :: step]
    return [e for i, e in enumerate(examples) if i % step != step - 1], held_out


async def encode_general(encoder: Encoder, say: Progress = lambda text: None) -> States:
    """States of general traffic: where answers begin, and along them."""
    queries = list(general_queries())
    pairs = two_part_questions(queries, GENERAL_PAIRS, seed=1)
    prompts = [_ask(query) for query in queries + pairs]
    total = len(prompts)
    written = await encoder.encode(
        prompts, ANSWER_TOKENS, lambda done: say(f"encoding general queries {done}/{total}")
    )
    return States(
        np.stack([w.states[0] for w in written]),
        np.concatenate([w.states[1:] for w in written]),
    )


async def _encode_own(encoder: Encoder, prompts: Sequence[Messages]) -> States:
    """The first state of each prompt, by whether an answer was begun there."""
    states = np.stack([w.states[0] for w in await encoder.encode(prompts, 1)])
    inside = np.array([prompt[-1]["role"] == "assistant" for prompt in prompts])
    return States(states[~inside], states[inside])


async def _encode_two_part(encoder: Encoder, seen: list[Messages]) -> tuple[States, States]:
    """General question first, the expert's second: after each sentence of the meta's answer
    is the expert's turn (first result), at the start and inside its first sentence it is not."""
    queries = [p[0]["content"] for p in seen if len(p) == 1 and p[0]["role"] == "user"]
    empty = np.empty((0, encoder.hidden_size), np.float32)
    if not queries:
        return States(empty, empty), States(empty, empty)
    prompts = [_ask(question) for question in two_part_questions(queries, TWO_PART, seed=2)]
    written = await encoder.encode(prompts, ANSWER_TOKENS)
    after = [w.states[sentence_ends(w.tokens)] for w in written]
    before = [w.states[1 : _first_end(w)] for w in written]
    start = np.stack([w.states[0] for w in written])
    none = start[:0]
    return States(none, np.concatenate(after)), States(start, np.concatenate(before))


def _first_end(written: Written) -> int:
    return next(iter(sentence_ends(written.tokens)), len(written.tokens))


def _ask(query: str) -> Messages:
    return [{"role": "user", "content": query}]
