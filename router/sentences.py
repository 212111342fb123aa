"""Where a sentence of an answer is over: token by token, the same for fitting and serving."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SENTENCE_END = re.compile(r"[.!?:…。！？][\"”’)*]*\s*$|\n$")
_END_OF_TURN = re.compile(r"<\|.*\|>|</s>")


def ends_sentence(token: str) -> bool:
    """Whether a sentence, a paragraph or a line is over after a token of this text."""
    return _SENTENCE_END.search(token) is not None


def sentence_ends(tokens: Sequence[str]) -> list[int]:
    """Positions in an answer (tokens written before, at least 1) at which a sentence is over,
    or the whole answer: the next token is the end of the turn."""
    return [
        position
        for position in range(1, len(tokens))
        if ends_sentence(tokens[position - 1]) or _END_OF_TURN.fullmatch(tokens[position])
    ]
