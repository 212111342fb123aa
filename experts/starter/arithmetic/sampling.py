"""Random problems within the arithmetic expert's range, and questions just outside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from experts.starter.arithmetic.phrasing import (
    MINUS_FORMS,
    OVER_FORMS,
    PLUS_FORMS,
    TIMES_FORMS,
    write_expression,
)
from experts.starter.arithmetic.problems import (
    Number,
    Operation,
    Problem,
    add,
    divide,
    multiply,
    percentage,
    subtract,
    two_step,
)

MAX_DIGITS = 6
Mix = Mapping[Operation, float]
"""Shares of the operations."""
MIX: Mix = {
    "addition": 0.17,
    "subtraction": 0.17,
    "decimals": 0.15,
    "multiplication": 0.14,
    "division": 0.19,
    "percentage": 0.08,
    "two-step": 0.10,
}
"""In what people ask. Products are long and contain sums, so they are fewer."""
TRAINING_MIX: Mix = {
    "addition": 0.13,
    "subtraction": 0.14,
    "decimals": 0.14,
    "multiplication": 0.13,
    "division": 0.29,
    "percentage": 0.08,
    "two-step": 0.09,
}
"""In training. Long division is learned last."""


def sample_training(random: Random, operation: Operation | None = None, mix: Mix = MIX) -> Problem:
    """A problem that training may contain; its operation is drawn from `mix` unless given."""
    while True:
        problem = sample(random, operation, mix)
        if problem.for_training():
            return problem


def sample_evaluation(random: Random, operation: Operation) -> Problem:
    """A problem kept for evaluation, so that no training example contains it."""
    while True:
        problem = sample(random, operation)
        if problem.for_evaluation() and problem.operation == operation:
            return problem


def sample_follow_up(
    random: Random, wanted: Callable[[Problem], bool], mix: Mix = MIX
) -> tuple[Problem, str, Problem]:
    """A training problem from `mix`, a request that goes on from its result, and the `wanted`
    problem that this means."""
    while True:
        earlier = sample_training(random, mix=mix)
        if earlier.answer.isdigit() and len(earlier.answer) <= MAX_DIGITS:
            request, problem = _next_step(int(earlier.answer), random)
            if wanted(problem):
                return earlier, request, problem


def sample(random: Random, operation: Operation | None = None, mix: Mix = MIX) -> Problem:
    """Any problem within range."""
    operation = operation or random.choices(list(mix), weights=list(mix.values()))[0]
    return _SAMPLERS[operation](random)


def integer(random: Random, digits: int, low: int = 1) -> int:
    """An integer of 1 to `digits` digits, every length equally likely, at least `low`."""
    length = random.randint(1, digits)
    return max(low, random.randrange(10 ** (length - 1) if length > 1 else 0, 10**length))


def _sum_operand(random: Random) -> Number:
    return Number(integer(random, MAX_DIGITS, 0))


def _pair(random: Random) -> tuple[Number, Number]:
    """Two integers, half of the time of the same length."""
    a = _sum_operand(random)
    if random.random() < 0.5:
        length = len(str(a))
        low = 10 ** (length - 1) if length > 1 else 0
        return a, Number(random.randrange(low, 10**length))
    return a, _sum_operand(random)


def _addition(random: Random) -> Problem:
    return add(*_pair(random))


def _subtraction(random: Random) -> Problem:
    a, b = _pair(random)
    if a.value < b.value and random.random() < 0.6:
        a, b = b, a
    return subtract(a, b)


def _decimal(random: Random) -> Number:
    return Number(integer(random, 5), random.randint(1, 3)).trimmed()


def _decimals(random: Random) -> Problem:
    a = _decimal(random)
    b = Number(integer(random, 3)) if random.random() < 0.2 else _decimal(random)
    if random.random() < 0.5:
        return add(a, b)
    swap = a.scaled(3) < b.scaled(3) and random.random() < 0.7
    return subtract(b, a) if swap else subtract(a, b)


def _multiplication(random: Random) -> Problem:
    """Up to three by three digits, and four by two."""
    a, b = integer(random, 3), integer(random, 3)
    if random.random() < 0.15:
        a, b = random.randrange(1000, 10_000), integer(random, 2)
    if random.random() < 0.6:
        a, b = max(a, b), min(a, b)
    return multiply(a, b)


def _division(random: Random) -> Problem:
    divisor = random.randint(2, 9) if random.random() < 0.4 else random.randint(10, 99)
    if random.random() < 0.5:
        return divide(divisor * integer(random, 3), divisor)
    return divide(integer(random, 5, divisor), divisor)


def _percentage(random: Random) -> Problem:
    percent = random.choice((5, 10, 15, 20, 25, 30, 40, 50, 60, 75, random.randint(1, 99)))
    whole = Number(integer(random, 4))
    chance = random.random()
    if chance < 0.3:
        whole = Number(10 * integer(random, 3))
    elif chance < 0.5:
        whole = Number(integer(random, 4), random.randint(1, 2)).trimmed()
    return percentage(percent, whole)


def _two_step(random: Random) -> Problem:
    a, b, c = random.randint(1, 99), random.randint(1, 99), random.randint(2, 20)
    x, y = Number(a), Number(b)
    kind = random.randrange(6)
    if kind == 0:
        return two_step(f"({a} + {b}) × {c}", add(x, y), multiply(a + b, c))
    if kind == 1:
        a, b = max(a, b), min(a, b)
        first = subtract(Number(a), Number(b))
        return two_step(f"({a} - {b}) × {c}", first, multiply(a - b, c))
    if kind == 2:
        return two_step(f"{c} × ({a} + {b})", add(x, y), multiply(c, a + b))
    if kind == 3:
        return two_step(f"{a} × {c} + {b}", multiply(a, c), add(Number(a * c), y))
    if kind == 4:
        return two_step(f"{a} × {c} - {b}", multiply(a, c), subtract(Number(a * c), y))
    return two_step(f"{b} + {a} × {c}", multiply(a, c), add(y, Number(a * c)))


def _next_step(result: int, random: Random) -> tuple[str, Problem]:
    number = random.randint(2, 99) if random.random() < 0.7 else random.randint(100, 9999)
    small = random.randint(2, 12) if random.random() < 0.7 else random.randint(13, 99)
    value, term = Number(result), Number(number)
    kinds: list[tuple[tuple[str, ...], int, Problem]] = [
        (PLUS_FORMS, number, add(value, term)),
        (MINUS_FORMS, number, subtract(value, term)),
    ]
    if 0 < result < 1000:
        kinds.append((TIMES_FORMS, small, multiply(result, small)))
    if small <= result < 100_000:
        kinds.append((OVER_FORMS, small, divide(result, small)))
    forms, operand, problem = random.choice(kinds)
    return random.choice(forms).format(write_expression(str(operand), random)), problem


_SAMPLERS: dict[Operation, Callable[[Random], Problem]] = {
    "addition": _addition,
    "subtraction": _subtraction,
    "decimals": _decimals,
    "multiplication": _multiplication,
    "division": _division,
    "percentage": _percentage,
    "two-step": _two_step,
}


def out_of_range(random: Random) -> str:
    """A calculation that the expert declines: too many digits, or another kind of mathematics."""

    def big(low: int, high: int) -> int:
        length = random.randint(low, high)
        return random.randrange(10 ** (length - 1), 10**length)

    return random.choice(
        (
            f"{big(8, 14)} {random.choice('+-')} {big(3, 14)}",
            f"{big(4, 8)} × {big(3, 6)}",
            f"{big(5, 12)} × {big(2, 9)}",
            f"{big(5, 9)} ÷ {big(3, 6)}",
            f"the square root of {big(1, 6)}",
            f"{big(1, 2)} to the power of {big(1, 2)}",
            f"the logarithm of {big(1, 5)}",
            f"the sine of {big(1, 3)} degrees",
            f"the factorial of {big(1, 2)}",
        )
    )
