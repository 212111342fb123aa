"""Reading the result out of an answer, and judging it. No torch."""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = re.compile(r"[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_REMAINDER = re.compile(r"(\d[\d,]*)\D{0,24}\b(?:remainder|rem|r)\b\D{0,12}(\d[\d,]*)", re.I)


def final_number(text: str) -> str | None:
    """The last number in `text`, without thousands separators, or None.

    "4821 + 3977 = 8,798." gives "8798". A minus directly before a number is its sign unless a
    digit or a closing bracket stands before it ("7-5").
    """
    last: str | None = None
    for match in _NUMBER.finditer(text):
        number = match[0].replace(",", "").replace("−", "-")
        before = text[: match.start()].rstrip()
        if number.startswith("-") and before and (before[-1].isdigit() or before[-1] == ")"):
            number = number[1:]
        last = number
    return last


def is_correct(text: str, answer: str) -> bool:
    """Whether `text` ends in `answer`: an equal number ("42" and "42.0" are), or, for an answer
    such as "688 remainder 5", the same quotient and remainder. An answer without a number is one
    that declines, and stands in the text."""
    if not any(character.isdigit() for character in answer):
        return answer in text
    if "remainder" in answer:
        given, wanted = _remainders(text), _remainders(answer)
        return bool(given) and given[-1] == wanted[-1]
    number = final_number(text)
    return number is not None and Fraction(number) == Fraction(answer)


def _remainders(text: str) -> list[tuple[int, int]]:
    pairs = _REMAINDER.findall(text)
    return [(int(q.replace(",", "")), int(r.replace(",", ""))) for q, r in pairs]
