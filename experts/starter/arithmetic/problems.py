"""Arithmetic problems with worked answers: what the expert is taught to write.

The working is written so that a small model finds every digit it needs by counting from the left
or by looking at what stands nearby. Numbers are worked with turned round, ones first: equal places
then have equal numbers, and carries go the way in which the model writes. Every column of a sum has
the same form and holds its carry; after `>` stands what the columns give, still turned round. Only
the last line turns it back. Nothing is estimated: a difference shows by its last borrow that it is
below zero, and a division tries the multiples one after the other.
Python's integers compute every step; tests check the answers with `fractions.Fraction`.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, zip_longest
from typing import Literal

Operation = Literal[
    "addition",
    "subtraction",
    "decimals",
    "multiplication",
    "decimal product",
    "division",
    "percentage",
    "percent change",
    "two-step",
    "chain",
    "negative",
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
    """One problem. `expression` is the canonical question ("4821 + 3977"), `steps` the lines that
    lead to the result, and `parts` the problems that it contains."""

    operation: Operation
    expression: str
    steps: tuple[str, ...]
    answer: str
    parts: tuple[Problem, ...] = ()

    @property
    def working(self) -> str:
        """The whole answer, ending in "expression = answer"."""
        return "\n".join([*self.steps, f"{self.expression} = {self.answer}"])

    @property
    def inner(self) -> tuple[str, ...]:
        """The lines of this problem as a part of another."""
        if not self.steps:
            return (f"{self.expression} = {self.answer}",)
        return (*self.steps, f"= {self.answer}")

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
    steps = [*_aligned(a, b, "+", places), _sum(x, y), _read_off(x + y, places=places)]
    return _finish("addition", f"{a} + {b}", steps, Number(x + y, places))


def subtract(a: Number, b: Number) -> Problem:
    """a - b, column by column from the right, borrowing ten where needed.

    Where the last column borrows too, the result is below zero: b - a is worked out and the sign
    turned.
    """
    places = max(a.places, b.places)
    x, y = a.scaled(places), b.scaled(places)
    steps = [*_aligned(a, b, "-", places), _difference(x, y)]
    if x < y:
        steps += [f"< 0: {_turned(y, 1, places)} {_turned(x, 1, places)}", _difference(y, x)]
    steps.append(_read_off(abs(x - y), len(_columns(x, y)), places))
    return _finish("subtraction", f"{a} - {b}", steps, Number(x - y, places))


def multiply(a: int, b: int) -> Problem:
    """a × b: a row for each digit of b from the right, each added to the sum of those before.

    A column is digit × digit + carry = two digits. A row begins with the zeros of its place.
    """
    steps = [f"{a} × {b}", f"{_turned(a)} {_turned(b)}"]
    total, sums = 0, []
    for place, factor in enumerate(_digits(b)):
        row = a * factor * 10**place
        steps.append(f"{_row(a, factor)} {_read_off(row)}" if factor else "> 0")
        if row and total:
            steps += [f"{_turned(total)} {_turned(row)}", _sum(total, row), _read_off(total + row)]
            sums.append(add(Number(total), Number(row)))
        total += row
    return _finish("multiplication", f"{a} × {b}", steps, Number(total), tuple(sums))


def divide(a: int, b: int) -> Problem:
    """a ÷ b by long division, b at most 99; a quotient with remainder where it is not exact.

    First the multiples of b; then for each digit of a what is to be divided, the multiples up to
    the first that is larger (`>`), and what the last that fits (`<`) leaves, worked out in as many
    columns as b has digits: more of them a remainder never has. All of them are turned round, and
    filled up with zeros to the same length. A line ends with the digit of the quotient and the
    digits of a that are still to come, the last one with a point.
    """
    width = len(str(b))
    multiples = [f"{i}:{_turned(b * i, width + 1)}" for i in range(10)]
    remainder, steps, found = 0, [], []
    for place, digit in enumerate(str(a), 1):
        current = 10 * remainder + int(digit)
        quotient, remainder = divmod(current, b)
        tried = [f"{multiple}<" for multiple in multiples[1 : quotient + 1]]
        tried += [f"{multiple}>" for multiple in multiples[quotient + 1 : quotient + 2]]
        turned = _turned(current, width + 1)
        line = [turned, *tried]
        if quotient:
            line += [turned, _turned(quotient * b, width + 1)]
            line.append(_difference(current, quotient * b, width))
        line += [_read_off(remainder, width), str(quotient), str(a)[place:] or "."]
        steps.append(" ".join(line))
        found.append(str(quotient))
    quotient, remainder = divmod(a, b)
    answer = f"{quotient} remainder {remainder}" if remainder else str(quotient)
    expression = f"{a} ÷ {b}"
    result = f"{''.join(found)} left {remainder}"
    lines = (expression, " ".join(multiples[1:]), *steps, result)
    if a < 10 and b < 10:
        lines = ()
    return Problem("division", expression, lines, answer)


def percentage(percent: Number, whole: Number) -> Problem:
    """percent % of whole, through percent × whole ÷ 100."""
    return _pointed_off("percentage", f"{percent}% of {whole}", whole, percent, 2)


def multiply_decimals(a: Number, b: Number) -> Problem:
    """a × b without their points, then pointed off."""
    return _pointed_off("decimal product", f"{a} × {b}", a, b, 0)


def _pointed_off(operation: Operation, expression: str, a: Number, b: Number, more: int) -> Problem:
    """The product of two numbers' digits, with the decimals of both and `more`.

    It is pointed off while it is turned round, behind the number of its decimals.
    """
    product = multiply(a.value, b.value)
    result = Number(a.value * b.value, a.places + b.places + more)
    pointed = f"{result.places}: {str(result)[::-1]}"
    steps = [expression, *(product.steps or product.inner), pointed]
    return _finish(operation, expression, steps, result, (product,))


def percent_change(whole: Number, sign: Literal["+", "-"], percent: Number) -> Problem:
    """whole + percent % of it, or less by as much."""
    part = percentage(percent, whole)
    change = combine(whole, sign, number(part.answer))
    return in_steps("percent change", f"{whole} {sign} {percent}%", part, change)


def two_step(expression: str, first: Problem, second: Problem) -> Problem:
    """An expression of two operations: `second` contains the result of `first`."""
    return in_steps("two-step", expression, first, second)


def in_steps(operation: Operation, expression: str, *parts: Problem) -> Problem:
    """An expression that is worked out part by part; the last gives the result."""
    steps = (expression, *(line for part in parts for line in part.inner))
    return Problem(operation, expression, steps, parts[-1].answer, parts)


def combine(a: Number, sign: Literal["+", "-"], b: Number) -> Problem:
    """a + b or a - b of any two numbers.

    Where one is below zero, it is the sum or the difference of their amounts, which is worked out
    with its sign turned where a line `-` stands before it.
    """
    if a.value >= 0 and b.value >= 0:
        return add(a, b) if sign == "+" else subtract(a, b)
    right = Number(b.value if sign == "+" else -b.value, b.places)
    x, y = Number(abs(a.value), a.places), Number(abs(right.value), right.places)
    if a.value >= 0:
        inner = subtract(x, y) if right.value < 0 else add(x, y)
    else:
        inner = add(x, y) if right.value < 0 else subtract(y, x)
    turned = a.value < 0 and right.value < 0
    expression = f"{a} {sign} {b}" if b.value >= 0 else f"{a} {sign} ({b})"
    return _with_sign(expression, turned, inner)


def multiply_signed(a: int, b: int) -> Problem:
    """a × b where one is or both are below zero."""
    expression = f"{a} × {b}" if b >= 0 else f"{a} × ({b})"
    return _with_sign(expression, a * b < 0, multiply(abs(a), abs(b)))


def _with_sign(expression: str, turned: bool, inner: Problem) -> Problem:
    steps = (expression, *(["-"] if turned else []), *inner.inner)
    result = number(inner.answer)
    answer = str(Number(-result.value, result.places)) if turned else inner.answer
    return Problem("negative", expression, steps, answer, (inner,))


def number(text: str) -> Number:
    """The number that an answer without remainder is."""
    whole, _, decimals = text.partition(".")
    return Number(int(whole + decimals), len(decimals))


def value_of(answer: str) -> Fraction:
    """The exact value of an answer without remainder."""
    return Fraction(answer)


def _finish(
    operation: Operation,
    expression: str,
    steps: list[str],
    result: Number,
    parts: tuple[Problem, ...] = (),
) -> Problem:
    """The problem with its result; zeros at the end of decimals are taken off in a step."""
    single = all(len(operand) == 1 for operand in re.findall(r"[\d.]+", expression))
    if single and operation not in ("percentage", "decimal product"):
        steps, parts = [], ()
    if "." in expression and operation in ("addition", "subtraction"):
        operation = "decimals"
    answer = result.trimmed()
    if str(answer) != str(result) or operation in ("percentage", "decimal product"):
        steps = [*steps, f"= {result}"]
    return Problem(operation, expression, tuple(steps), str(answer), parts)


def _aligned(a: Number, b: Number, sign: str, places: int) -> list[str]:
    """The expression, with equally many decimals if it has any, and both numbers turned round."""
    x, y = Number(a.scaled(places), places), Number(b.scaled(places), places)
    lines = [f"{a} {sign} {b}"]
    if places:
        lines.append(f"{x} {sign} {y}")
    return [*lines, f"{_turned(x.value, 1, places)} {_turned(y.value, 1, places)}"]


def _columns(x: int, y: int) -> list[tuple[int, int]]:
    """The digits of two numbers place by place, from the ones on."""
    return list(zip_longest(_digits(x), _digits(y), fillvalue=0))


def _sum(x: int, y: int) -> str:
    """The columns of x + y."""
    carry, columns = 0, []
    for i, j in _columns(x, y):
        total = i + j + carry
        columns.append(f"{i}+{j}+{carry}={total:02d}")
        carry = total // 10
    return " ".join(columns)


def _difference(x: int, y: int, width: int | None = None) -> str:
    """The first `width` columns of x - y, or all; the last one borrows where the difference is
    below zero."""
    borrow, columns = 0, []
    for i, j in islice(_columns(x, y), width):
        ten = 1 if i < j + borrow else 0
        columns.append(f"{ten}{i}-{j}-{borrow}={10 * ten + i - j - borrow}")
        borrow = ten
    return " ".join(columns)


def _row(a: int, factor: int) -> str:
    """a × one digit: digit × digit + carry = two digits, from the ones on."""
    carry, columns = 0, []
    for digit in _digits(a):
        value = digit * factor + carry
        columns.append(f"{digit}×{factor}+{carry}={value:02d}")
        carry = value // 10
    return " ".join(columns)


def _digits(value: int) -> list[int]:
    """The digits of a number from the ones on."""
    return [int(digit) for digit in reversed(str(value))]


def _turned(value: int, width: int = 1, places: int = 0) -> str:
    """A number's digits from the ones on, at least `width` of them; after the first `places` stands
    the point."""
    digits = str(value).zfill(max(width, places + 1))[::-1]
    return f"{digits[:places]}.{digits[places:]}" if places else digits


def _read_off(value: int, width: int = 1, places: int = 0) -> str:
    """What the columns before give."""
    return f"> {_turned(value, width, places)}"
