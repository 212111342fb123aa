"""Learn one expert's row from its example queries: encode, fit, and keep some back to check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from router.background import general_queries, two_part_questions
from router.encode import Encoder, Messages
from router.fit import Evidence, fit_row
from router.head import Floats, HeadRow
from router.meta_client import Written
from router.sentences import sentence_ends
from router.shipped import shipped_evidence

ANSWER_TOKENS = 32
"""How far general and two-part answers are followed."""
GENERAL_PAIRS = 100
TWO_PART = 60
"""Two-part questions made from the examples; of the first FOLLOWED the answer is followed."""
FOLLOWED = 24
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
    two_part = await _encode_two_part(encoder, seen)
    say("encoding the other experts' queries")
    rest = await _encode_own(encoder, others)
    say("fitting the row")
    row = await asyncio.to_thread(fit_row, own, two_part, rest, general)
    return Learned(row, tuple(held_out))


def split(examples: list[Messages]) -> tuple[list[Messages], list[Messages]]:
    """Examples to fit on, and every fifth to check with (only the former if there are few).

    Unfinished answers are all fitted on: the check asks for the first token of new answers.
    """
    whole = [example for example in examples if example[-1]["role"] != "assistant"]
    begun = [example for example in examples if example[-1]["role"] == "assistant"]
    step = round(1 / HELD_OUT)
    if len(whole) < 2 * step:
        return examples, []
    seen = [example for i, example in enumerate(whole) if i % step != step - 1]
    return seen + begun, whole[step - 1 :: step]


async def encode_general(encoder: Encoder, say: Progress = lambda text: None) -> Evidence:
    """General traffic: where answers begin, and the ends of their sentences.

    Trivium ships it for the default meta LLM; another one encodes it once.
    """
    if (known := shipped_evidence(encoder.fingerprint)) is not None:
        return known
    queries = list(general_queries())
    pairs = two_part_questions(queries, GENERAL_PAIRS, seed=1)
    prompts = [_ask(query) for query in queries + pairs]
    total = len(prompts)
    written = await encoder.encode(
        prompts, ANSWER_TOKENS, lambda done: say(f"encoding general queries {done}/{total}")
    )
    return _evidence(encoder, written)


async def _encode_own(encoder: Encoder, prompts: Sequence[Messages]) -> Evidence:
    """An expert's queries. A prompt that ends inside an answer is a place to carry on."""
    inside = [prompt for prompt in prompts if prompt[-1]["role"] == "assistant"]
    begins = [prompt for prompt in prompts if prompt[-1]["role"] != "assistant"]
    starts, places = await encoder.encode(begins, 1), await encoder.encode(inside, 1)
    return Evidence(_first_states(encoder, starts), _first_states(encoder, places))


async def _encode_two_part(encoder: Encoder, seen: list[Messages]) -> Evidence:
    """A general question first, then one of the expert's: at the start it is not its turn yet,
    after a sentence of the meta's answer it is."""
    queries = [p[0]["content"] for p in seen if len(p) == 1 and p[0]["role"] == "user"]
    questions = two_part_questions(queries, TWO_PART, seed=2) if queries else []
    followed = questions[:FOLLOWED]
    answers = await encoder.encode([_ask(question) for question in followed], ANSWER_TOKENS)
    others = await encoder.encode([_ask(question) for question in questions[FOLLOWED:]], 1)
    begun = [p[:-1] for p in seen if p[-1]["role"] == "assistant" and len(p) > 1]
    starts = await encoder.encode(begun, 1)
    evidence = _evidence(encoder, answers)
    return Evidence(
        np.concatenate([evidence.start, _first_states(encoder, [*others, *starts])]),
        evidence.ends,
    )


def _evidence(encoder: Encoder, written: Sequence[Written]) -> Evidence:
    """First states, and the states at ends of sentences, of whole answers."""
    ends = [w.states[sentence_ends(w.tokens)] for w in written]
    return Evidence(_first_states(encoder, written), _stack(encoder, ends))


def _first_states(encoder: Encoder, written: Sequence[Written]) -> Floats:
    return _stack(encoder, [w.states[:1] for w in written])


def _stack(encoder: Encoder, parts: Sequence[Floats]) -> Floats:
    """`[n, hidden]`, also of no parts at all."""
    return np.concatenate([np.empty((0, encoder.hidden_size), np.float32), *parts])


def _ask(query: str) -> Messages:
    return [{"role": "user", "content": query}]
