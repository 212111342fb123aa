"""What is beyond the arithmetic expert: random calculations that it declines."""

from __future__ import annotations

import zlib
from random import Random

from experts.starter.arithmetic.problems import EVALUATION_SHARE, Number
from experts.starter.arithmetic.sampling import integer, of_length


def out_of_range(random: Random, kept: bool = False) -> str:
    """A calculation that the expert declines, one of training or one `kept` for evaluation."""
    while True:
        text = _out_of_range(random)
        if (zlib.crc32(text.encode()) % EVALUATION_SHARE == 0) == kept:
            return text


def _out_of_range(random: Random) -> str:
    """Too many digits or steps, or another kind of mathematics."""

    def big(low: int, high: int) -> int:
        return of_length(random, random.randint(low, high))

    def few(most: int = 99) -> int:
        return random.randint(1, most)

    def decimal(digits: int = 3) -> str:
        return str(
            Number(10 * integer(random, digits) + random.randint(1, 9), random.randint(1, 2))
        )

    def swapped(a: object, sign: str, b: object) -> str:
        a, b = random.choice(((a, b), (b, a)))
        return f"{a} {sign} {b}"

    def many(sign: str) -> str:
        return sign.join(str(few(999)) for _ in range(random.randint(5, 8)))

    kinds = (
        lambda: swapped(big(7, 14), random.choice("+-"), big(1, 14)),
        lambda: swapped(big(4, 8), "×", big(3, 6)),
        lambda: swapped(big(5, 12), "×", big(1, 9)),
        lambda: f"{big(6, 12)} ÷ {few()}",
        lambda: f"{big(5, 9)} ÷ {big(3, 6)}",
        lambda: f"{few(9999)} ÷ {big(3, 4)}",
        lambda: f"the {random.choice(('square', 'cube'))} root of {big(1, 6)}",
        lambda: f"{random.choice(('√', 'sqrt '))}{few(999)}",
        lambda: f"{few()} to the power of {random.randint(3, 12)}",
        lambda: f"{few()}{random.choice(('^', '**'))}{random.randint(3, 12)}",
        lambda: f"{few()} cubed",
        lambda: f"the logarithm of {big(1, 5)}",
        lambda: (
            random.choice(("log", "ln", "sin", "cos", "tan"))
            + random.choice(("({})", " {}")).format(few(360))
        ),
        lambda: f"the sine of {big(1, 3)} degrees",
        lambda: f"the factorial of {big(1, 2)}",
        lambda: f"{few(20)}!",
        lambda: f"{few(9)}/{few(12)} {random.choice('+-×')} {few(9)}/{few(12)}",
        lambda: f"{few(9)}/{few(12)} of {few(999)}",
        lambda: f"{decimal()} ÷ {decimal(2)}",
        lambda: f"{decimal()} / {few()}",
        lambda: f"({decimal(2)} + {decimal(2)}) × {few(20)}",
        lambda: (
            f"({few()} {random.choice('+-')} {few()}) {random.choice('×÷')}"
            f" ({few()} {random.choice('+-')} {few()})"
        ),
        lambda: f"{few()} × {few()} ÷ {few(20)}",
        lambda: f"{big(3, 4)} × {big(2, 4)} × {big(1, 3)}",
        lambda: f"{few()} {random.choice('+-')} {few()} × {few(20)} {random.choice('+-')} {few()}",
        lambda: f"{few(999)} ÷ {few(99)} {random.choice(('in decimals', 'as a decimal'))}",
        lambda: f"{few()} × {few()} + {few()} × {few()}",
        lambda: f"{few()} ÷ {few(9)} ÷ {few(9)}",
        lambda: f"({few()} + {few()}) × {few()} - {few()}",
        lambda: many(random.choice((" + ", "+", " - "))),
        lambda: f"{few(99)}.{big(4, 7)} {random.choice('+×')} {few()}",
        lambda: (
            f"{few(99)} {random.choice(('million', 'billion'))} {random.choice('+-')} {few(999)}"
        ),
        lambda: f"the average of {few(999)}, {few(999)} and {few(999)}",
        lambda: f"the {random.choice(('mean', 'median'))} of {few()}, {few()}, {few()} and {few()}",
        lambda: f"{few(999)} {random.choice(('mod', 'modulo', '%'))} {few()}",
        lambda: (
            f"the {random.choice(('gcd', 'greatest common divisor', 'lcm'))} of {few()} and {few()}"
        ),
        lambda: f"the prime factors of {big(2, 4)}",
        lambda: f"x if {few()}x + {few()} = {few(999)}",
        lambda: f"x in x {random.choice('+-')} {few()} = {few(999)}",
        lambda: f"{decimal()} rounded to {random.choice(('one decimal', 'a whole number'))}",
        lambda: f"what percentage {few()} is of {few(999)}",
        lambda: f"{few(999)} as a percentage of {few(999)}",
        lambda: f"{few()}% of {few()}% of {few(999)}",
        lambda: f"{few(999)} {random.choice(('miles in km', 'feet in metres', 'pounds in kg'))}",
        lambda: f"{few(999)} {random.choice(('km to miles', 'kg to pounds', 'hours in seconds'))}",
        lambda: swapped(random.choice(("a dozen", "two dozen")), "×", few()),
        lambda: f"the sum of the first {few()} {random.choice(('integers', 'even numbers'))}",
        lambda: f"the interest on {big(3, 5)} at {few(9)}% for {few(30)} years",
        lambda: f"0x{few(255):X} + {few(99)}",
        lambda: f"{few()} in binary",
        lambda: f"x + {few()}",
    )
    return random.choice(kinds)()


def by_zero(random: Random) -> str:
    """A division that has no result."""
    return f"{integer(random, 4, 0)} ÷ 0"
