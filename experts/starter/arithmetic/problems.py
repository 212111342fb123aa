"""Arithmetic problems with worked answers: what the expert is taught to write.

The working is written so that a small model finds every digit it needs at a fixed distance:
numbers of a sum have equally many digits, columns have a fixed width, the carry is always there.
Python's integers compute every step; tests check the answers with `fractions.Fraction`.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Operation = Literal[
    "addition", "subtraction", "decimals", "multiplication", "division", "percentage", "two-step"
]
EVALUATION_SHARE = 50
"""One problem in this many is kept for evaluation."""


@dataclass(frozen=True)
class Number:
    """A decimal number `value / 10**places`, at least 0 where it is an operand."""

    value: int
    places: int = 0

    def __str__(self) -> str:
        sign = "-" if self.value < 0 else ""
        digits = str(abs(self.value)).zfill(self.places + 1)
        if not self.places:
            return sign + digits
        return f"{sign}{digits[: -self.places]}.{digits[-self.places :]}"

    def scaled(self, places: int) -> int:
        """The value in units of `10**-places`; `places` is at least the number's own."""
        return self.value * int(10 ** (places - self.places))

    def trimmed(self) -> Number:
        """The same number without zeros at the end of its decimals."""
        value, places = self.value, self.places
        while places and value % 10 == 0:
            value, places = value // 10, places - 1
        return Number(value, places)


@dataclass(frozen=True)
class Problem:
    """One problem. `expression` is the canonical question ("4821 + 3977"), `working` the whole
    answer, ending in "expression = answer", and `parts` the problems that it contains."""

    operation: Operation
    expression: str
    working: str
    answer: str
    parts: tuple[Problem, ...] = ()

    def for_training(self) -> bool:
        """Whether training may contain it: neither it nor a part is kept for evaluation."""
        return not self.for_evaluation() and all(part.for_training() for part in self.parts)

    def for_evaluation(self) -> bool:
        """Whether the problem is kept for evaluation, by a hash of its operands and operator.

        Problems of single digits are not kept: they are the steps of all others.
        """
        operands = sorted(re.findall(r"[\d.]+", self.expression))
        signs = "".join(re.findall(r"[-+×÷%]", self.expression))
        if all(len(operand) == 1 for operand in operands):
            return False
        return zlib.crc32(f"{signs}|{'|'.join(operands)}".encode()) % EVALUATION_SHARE == 0


def add(a: Number, b: Number) -> Problem:
    """a + b, column by column from the right: digit + digit + carry = two digits."""
    places = max(a.places, b.places)
    x, y = a.scaled(places), b.scaled(places)
    width = max(len(str(x)), len(str(y)), places + 1)
    carry, columns = 0, []
    for i, j in zip(_reversed_digits(x, width), _reversed_digits(y, width), strict=True):
        total = i + j + carry
        columns.append(f"{i}+{j}+{carry}={total:02d}")
        carry = total // 10
    head = f"{_padded(x, width, places)} + {_padded(y, width, places)}:"
    result = Number(x + y, places).trimmed()
    return _finish("addition", f"{a} + {b}", [head, " ".join(columns)], result)


def subtract(a: Number, b: Number) -> Problem:
    """a - b, column by column from the right, borrowing ten where needed.

    Where b is larger, b - a is worked out and the sign turned.
    """
    places = max(a.places, b.places)
    x, y = a.scaled(places), b.scaled(places)
    if x < y:
        turned = subtract(b, a)
        lines = [f"{a} - {b} = -({b} - {a})", turned.working]
        result = Number(x - y, places).trimmed()
        return _finish("subtraction", f"{a} - {b}", lines, result, (turned,))
    width = max(len(str(x)), places + 1)
    borrow, columns = 0, []
    for i, j in zip(_reversed_digits(x, width), _reversed_digits(y, width), strict=True):
        ten = 1 if i < j + borrow else 0
        columns.append(f"{ten}{i}-{j}-{borrow}={10 * ten + i - j - borrow}")
        borrow = ten
    head = f"{_padded(x, width, places)} - {_padded(y, width, places)}:"
    result = Number(x - y, places).trimmed()
    return _finish("subtraction", f"{a} - {b}", [head, " ".join(columns)], result)


def multiply(a: int, b: int) -> Problem:
    """a × b by long multiplication: a row for each digit of b, from the right.

    A column is digit × digit + the digit above it + carry = two digits (at most 99).
    """
    above = [0] * len(str(a))
    rows = []
    for factor in _reversed_digits(b, len(str(b))):
        carry, row, digits = 0, [], []
        for i, over in zip(_reversed_digits(a, len(str(a))), above, strict=True):
            total = i * factor + over + carry
            row.append(f"{i}×{factor}+{over}+{carry}={total:02d}")
            digits.append(total % 10)
            carry = total // 10
        above = [*digits[1:], carry]
        rows.append(" ".join(row))
    return _finish("multiplication", f"{a} × {b}", [f"{a} × {b}:", *rows], Number(a * b))


def divide(a: int, b: int) -> Problem:
    """a ÷ b by long division, b at most 99; a quotient with remainder where it is not exact."""
    if b < 10:
        steps, separator = _short_division(a, b), " "
    else:
        steps, separator = _long_division(a, b), "\n"
    quotient, remainder = divmod(a, b)
    answer = f"{quotient} remainder {remainder}" if remainder else str(quotient)
    expression = f"{a} ÷ {b}"
    lines = [f"{expression}:", separator.join(steps), f"{expression} = {answer}"]
    return Problem("division", expression, "\n".join(lines), answer)


def percentage(percent: int, whole: int) -> Problem:
    """percent % of whole, through percent × whole ÷ 100."""
    product = multiply(percent, whole)
    result = Number(percent * whole, 2).trimmed()
    lines = [f"{percent} × {whole} ÷ 100", product.working]
    return _finish("percentage", f"{percent}% of {whole}", lines, result, (product,))


def two_step(expression: str, first: Problem, second: Problem) -> Problem:
    """An expression of two operations: `second` contains the result of `first`."""
    lines = [first.working, second.working, f"{expression} = {second.answer}"]
    return Problem("two-step", expression, "\n".join(lines), second.answer, (first, second))


def value_of(answer: str) -> Fraction:
    """The exact value of an answer without remainder."""
    return Fraction(answer)


def _finish(
    operation: Operation,
    expression: str,
    lines: list[str],
    result: Number,
    parts: tuple[Problem, ...] = (),
) -> Problem:
    single = all(len(operand) == 1 for operand in re.findall(r"[\d.]+", expression))
    if single and operation != "percentage":
        lines = []
    if "." in expression and operation in ("addition", "subtraction"):
        operation = "decimals"
    working = "\n".join([*lines, f"{expression} = {result}"])
    return Problem(operation, expression, working, str(result), parts)


def _short_division(a: int, b: int) -> list[str]:
    """A step for each digit of a: remainder and digit ÷ b = quotient digit r remainder."""
    remainder, steps = 0, []
    for digit in str(a):
        current = 10 * remainder + int(digit)
        quotient, after = divmod(current, b)
        steps.append(f"{remainder}{digit}÷{b}={quotient}r{after}")
        remainder = after
    return steps


def _long_division(a: int, b: int) -> list[str]:
    """A line for each digit of a from the second: number, quotient digit × b, what is left."""
    remainder, steps = int(str(a)[0]), []
    for digit in str(a)[1:]:
        current = 10 * remainder + int(digit)
        quotient = current // b
        product = quotient * b
        remainder = current - product
        n, p = f"{current:03d}", f"{product:03d}"
        steps.append(f"{n}: {quotient}×{b}={p} {n}-{p}={remainder:02d}")
    return steps


def _reversed_digits(value: int, width: int) -> list[int]:
    return [int(digit) for digit in reversed(str(value).zfill(width))]


def _padded(value: int, width: int, places: int) -> str:
    digits = str(value).zfill(width)
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits
