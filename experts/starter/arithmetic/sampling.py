"""Random problems within the arithmetic expert's range."""

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
    combine,
    divide,
    in_steps,
    multiply,
    multiply_decimals,
    multiply_signed,
    number,
    percent_change,
    percentage,
    subtract,
    two_step,
)

MAX_DIGITS = 6
LIKED = 0.2
"""The share of numbers that people like."""
Mix = Mapping[Operation, float]
"""Shares of the operations."""
MIX: Mix = {
    "addition": 0.14,
    "subtraction": 0.14,
    "decimals": 0.12,
    "multiplication": 0.11,
    "decimal product": 0.06,
    "division": 0.15,
    "percentage": 0.08,
    "percent change": 0.04,
    "two-step": 0.08,
    "chain": 0.05,
    "negative": 0.03,
}
"""In what people ask. Products are long and contain sums, so they are fewer."""
TRAINING_MIX: Mix = {
    "addition": 0.10,
    "subtraction": 0.10,
    "decimals": 0.11,
    "multiplication": 0.10,
    "decimal product": 0.06,
    "division": 0.25,
    "percentage": 0.08,
    "percent change": 0.04,
    "two-step": 0.08,
    "chain": 0.05,
    "negative": 0.03,
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
    return max(low, of_length(random, random.randint(1, digits)))


def of_length(random: Random, length: int) -> int:
    """An integer of so many digits; every fifth is one of those that people like: 500, 1200, 999,
    1001, 777. Among random digits they hardly occur, and equal digits are hard to count."""
    least = 10 ** (length - 1) if length > 1 else 0
    if random.random() >= LIKED:
        return random.randrange(least, 10**length)
    figures = random.randint(1, min(2, length))
    liked = (
        random.randrange(10 ** (figures - 1), 10**figures) * 10 ** (length - figures),
        10**length - random.randint(1, 2),
        least + random.randint(0, 2),
        10**length // 9 * random.randint(1, 9),
    )
    return random.choice(liked)


def _sum_operand(random: Random) -> Number:
    return Number(integer(random, MAX_DIGITS, 0))


def _pair(random: Random) -> tuple[Number, Number]:
    """Two integers, half of the time of the same length."""
    a = _sum_operand(random)
    if random.random() < 0.5:
        return a, Number(of_length(random, len(str(a))))
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
    """Up to three by three digits, and four by two; squares and doubles, which have names."""
    a, b = integer(random, 3), integer(random, 3)
    chance = random.random()
    if chance < 0.15:
        a, b = of_length(random, 4), integer(random, 2)
    elif chance < 0.23:
        a = integer(random, 3, 2)
        return multiply(a, random.choice((a, a, 2, 2, 3, 0)) if a < 100 else 2)
    if random.random() < 0.6:
        a, b = max(a, b), min(a, b)
    return multiply(a, b)


def _decimal_product(random: Random) -> Problem:
    """A price and a count, a decimal and a small number, or two decimals."""
    kind = random.randrange(3)
    if kind == 0:
        a = Number(integer(random, 4), 2).trimmed()
        b = Number(integer(random, 2))
    elif kind == 1:
        a, b = (
            Number(integer(random, 3), random.randint(1, 2)).trimmed(),
            Number(integer(random, 2)),
        )
    else:
        a = Number(integer(random, 3), random.randint(1, 2)).trimmed()
        b = Number(integer(random, 2), 1).trimmed()
    if random.random() < 0.2:
        a, b = b, a
    return multiply_decimals(a, b)


def _division(random: Random) -> Problem:
    divisor = random.randint(2, 9) if random.random() < 0.4 else random.randint(10, 99)
    chance = random.random()
    if chance < 0.06:  # half, a third, a quarter
        divisor = random.choice((2, 2, 3, 4))
        return divide(divisor * integer(random, 3), divisor)
    if chance < 0.09:
        return divide(random.randrange(divisor), divisor)
    if random.random() < 0.5:
        return divide(divisor * integer(random, 3), divisor)
    return divide(integer(random, 5, divisor), divisor)


def _percent(random: Random) -> Number:
    chance = random.random()
    if chance < 0.65:
        usual = (5, 10, 15, 20, 25, 30, 40, 50, 60, 75, random.randint(1, 99))
        return Number(random.choice(usual))
    if chance < 0.78:
        return Number(random.choice((100, 110, 120, 125, 150, 200, 250, random.randint(101, 300))))
    if chance < 0.92:
        return Number(10 * random.randint(0, 25) + 5, 1)
    return Number(random.randint(1, 999), random.randint(1, 2)).trimmed()


def _percentage(random: Random) -> Problem:
    percent = _percent(random)
    whole = Number(integer(random, 4))
    chance = random.random()
    if chance < 0.3:
        whole = Number(10 * integer(random, 3))
    elif chance < 0.5:
        whole = Number(integer(random, 4), random.randint(1, 2)).trimmed()
    return percentage(percent, whole)


def _percent_change(random: Random) -> Problem:
    percent = _percent(random) if random.random() < 0.3 else Number(5 * random.randint(1, 15))
    whole = Number(integer(random, 3))
    if random.random() < 0.3:
        whole = Number(integer(random, 4), random.randint(1, 2)).trimmed()
    return percent_change(whole, random.choice(("+", "-")), percent)


def _chain(random: Random) -> Problem:
    """Three or four numbers in one sum; three in a product."""
    if random.random() < 0.12:
        a, b, c = random.randint(2, 20), random.randint(2, 20), random.randint(2, 12)
        return in_steps("chain", f"{a} × {b} × {c}", multiply(a, b), multiply(a * b, c))
    places = random.choice((1, 2)) if random.random() < 0.2 else 0
    digits = 4 if places else random.choice((2, 2, 3, 4))
    terms = [
        Number(integer(random, digits), places).trimmed()
        for _ in range(random.choice((3, 3, 3, 4)))
    ]
    if random.random() < 0.8:
        terms.sort(key=lambda term: -term.scaled(2))
    result, expression, parts = terms[0], str(terms[0]), []
    only_sums = random.random() < 0.5
    for term in terms[1:]:
        sign = random.choice(("+", "+", "-")) if not only_sums else "+"
        parts.append(combine(result, sign, term))  # type: ignore[arg-type]
        result, expression = number(parts[-1].answer), f"{expression} {sign} {term}"
    return in_steps("chain", expression, *parts)


def _negative(random: Random) -> Problem:
    if random.random() < 0.25:
        a, b = integer(random, 2), integer(random, 2)
        return multiply_signed(*random.choice(((-a, b), (a, -b), (-a, -b))))
    a, b = integer(random, 3), integer(random, 3)
    x, y = random.choice(((-a, b), (-a, b), (-a, b), (a, -b), (-a, -b)))
    return combine(Number(x), random.choice(("+", "-")), Number(y))


def _two_step(random: Random) -> Problem:
    a, b, c = random.randint(1, 99), random.randint(1, 99), random.randint(2, 20)
    x, y = Number(a), Number(b)
    kind = random.randrange(10)
    if kind == 6:
        return two_step(f"({a} + {b}) ÷ {c}", add(x, y), divide(a + b, c))
    if kind == 7:
        a, b = max(a, b), min(a, b)
        return two_step(f"({a} - {b}) ÷ {c}", subtract(Number(a), Number(b)), divide(a - b, c))
    if kind == 8:
        return two_step(f"{a * c} ÷ {c} + {b}", divide(a * c, c), add(x, y))
    if kind == 9:
        return two_step(f"{b} + {a * c} ÷ {c}", divide(a * c, c), add(y, x))
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
    "decimal product": _decimal_product,
    "division": _division,
    "percentage": _percentage,
    "percent change": _percent_change,
    "two-step": _two_step,
    "chain": _chain,
    "negative": _negative,
}
