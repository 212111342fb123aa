"""Judging answers to chemistry questions. No torch."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

UNKNOWN = "unknown"
"""The answer to a question about what does not exist."""
_REFUSAL = re.compile(
    r"\b(no|not an?|isn't an?) (\w+ )?(element|compound|symbol)|\b(not|n't) (know|exist|aware)"
    r"|\bno such\b|\bknow no\b|\bfictional\b|\bunknown\b|\bsymbol that no element\b|\bbeyond\b"
    r"|\bdifferent oxidation states\b",
    re.I,
)
_NUMBER = re.compile(r"(?<![\w.,)+-])[+-]?\d+(?:\.\d+)?(?![\w+-]|\.\d)")
_CHARGE = re.compile(r"(?<![\w(])(?:(\d)?([+-])|([+-])(\d))(?!\w)")
_PLAIN = str.maketrans("₀₁₂₃₄₅₆₇₈₉⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻−–", "01234567890123456789+---", "*`_^{}$\\")
_SPELLINGS = {"aluminium": "aluminum", "caesium": "cesium", "sulph": "sulf"}


def is_correct(text: str, answer: str) -> bool:
    """Whether the last line of `text` says `answer`.

    Numbers: equal, rounded to fewer decimals but at least one, or with more decimals that round to
    it; a plus may be left out. Charges:
    "2-" or "-2". Symbols, formulas and configurations: letter by letter, spaces apart. Names: in
    either spelling. "unknown": any honest sentence that there is no such thing, or no such answer.
    """
    if answer == UNKNOWN:
        return _REFUSAL.search(text) is not None
    lines = [line for line in text.translate(_PLAIN).splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if re.fullmatch(r"\d[+-]", answer):
        return answer in {
            (size or other or "1") + (sign or sign_before)
            for size, sign, sign_before, other in _CHARGE.findall(last)
        }
    if re.fullmatch(r"[+-]?\d+(\.\d+)?", answer):
        last = re.sub(r"\bzero\b", "0", last)
        return any(_rounds_to(number, answer) for number in _NUMBER.findall(last))
    if answer[0].islower():
        return _says(_one_spelling(last), _one_spelling(answer))
    return _says(last, answer)


def _rounds_to(number: str, answer: str) -> bool:
    given, wanted = Decimal(number), Decimal(answer)
    if given == wanted:
        return True
    exponent, finest = given.as_tuple().exponent, wanted.as_tuple().exponent
    assert isinstance(exponent, int)
    assert isinstance(finest, int)
    if exponent < finest < 0:
        given, wanted, exponent = wanted, given, finest
    if not exponent <= -1:
        return False
    modes = (ROUND_HALF_EVEN, ROUND_HALF_UP)
    return any(wanted.quantize(Decimal(1).scaleb(exponent), mode) == given for mode in modes)


def _says(text: str, answer: str) -> bool:
    """Whether `answer` stands in `text` as a word of its own; spaces do not count."""
    letters = r"\s*".join(re.escape(letter) for letter in answer if not letter.isspace())
    return re.search(rf"(?<![\w()\[]){letters}(?![\w(\[+-]|\)\w)", text) is not None


def _one_spelling(text: str) -> str:
    text = text.lower()
    for there, here in _SPELLINGS.items():
        text = text.replace(there, here)
    return text
