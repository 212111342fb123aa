"""How people ask for a calculation: symbols, words, politeness, typos, everyday stories."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from experts.starter.arithmetic.problems import Problem
from experts.starter.wording import disturb

ASKS = (
    "What is {}?", "what is {}", "What's {}?", "whats {}", "How much is {}?", "how much is {}",
    "{}", "{}", "{}=", "{} =", "{} = ?", "{}?", "Compute {}.", "compute {}", "Calculate {}.",
    "calculate {}", "Please compute {}.", "Please calculate {}", "Can you work out {}?",
    "could you tell me what {} is?", "I need the result of {}.", "work out {}", "Solve {}",
    "solve: {}", "Evaluate {}.", "Find {}.", "Tell me {}", "{} please", "hey, what is {}?",
    "Do you know what {} is?", "What does {} equal?", "what do you get for {}?", "Hi! {}?",
    "what is the answer to {}", "Give me the value of {}.", "So what would {} be?",
    "quick question: {}", "Wht is {}?", "waht is {}", "how mcuh is {}?", "claculate {}",
    "What's the result of {}?", "I'd like to know {}.", "how many is {}?",
)  # fmt: skip
COMMANDS: dict[str, tuple[str, ...]] = {
    "+": (
        "{b} more than {a}", "What is {b} more than {a}?", "what's {a} and {b} together?",
        "Add {a} and {b}.", "add {a} and {b}", "What is the sum of {a} and {b}?",
        "sum of {a} and {b}", "Sum {a} and {b}", "the sum of {a} and {b} is?", "add {a} to {b}",
        "What do {a} and {b} add up to?", "{a} added to {b}", "total of {a} and {b}?",
        "I had {a} points and won {b} more. How many points do I have now?",
        "A shop sold {a} apples on Monday and {b} on Tuesday. How many apples in all?",
        "One box weighs {a} kg and another {b} kg. What do they weigh together?",
    ),
    "-": (
        "{b} less than {a}", "What is {b} less than {a}?", "{b} fewer than {a}",
        "Subtract {b} from {a}.", "subtract {b} from {a}", "take {b} away from {a}",
        "What is the difference between {a} and {b}?", "difference of {a} and {b}",
        "What is {a} less {b}?", "take {b} from {a}", "how much is {a} minus {b}",
        "I had {a} euros and spent {b}. How much is left?",
        "There were {a} litres in a tank and {b} were used. How much remains?",
    ),
    "×": (
        "Multiply {a} by {b}.", "multiply {a} and {b}", "What is the product of {a} and {b}?",
        "product of {a} and {b}", "{a} multiplied by {b}", "what is {a} multiplied by {b}?",
        "There are {a} rows of {b} seats. How many seats is that?",
        "If one ticket costs {a} dollars, how much do {b} tickets cost?",
        "A box holds {a} pens. How many pens are in {b} boxes?",
    ),
    "÷": (
        "Divide {a} by {b}.", "divide {a} by {b}", "{a} divided by {b}", "What is {a} over {b}?",
        "how often does {b} go into {a}?", "what is {a} divided by {b}?", "quotient of {a} and {b}",
        "Divide {a} by {b} with remainder.", "{a} divided by {b}, with remainder",
        "Share {a} sweets equally among {b} children. How many does each get?",
    ),
    "%": (
        "What is {a}% of {b}?", "{a}% of {b}", "what is {a} percent of {b}",
        "how much is {a}% of {b}?", "{a} percent of {b}", "Calculate {a}% of {b}.",
        "find {a} % of {b}", "{a} % of {b}?",
        "what's {a} percent of {b}?", "Please compute {a}% of {b}", "whats {a}% of {b}",
        "I leave a {a}% tip on a bill of {b}. How much is the tip?",
    ),
}  # fmt: skip
CHANGES: dict[str, tuple[str, ...]] = {
    "+": (
        "Increase {a} by {b}%.", "increase {a} by {b} percent", "{a} plus {b}%", "{a} + {b}%",
        "add {b}% to {a}", "What is {a} plus {b} percent?", "{a} increased by {b}%",
        "How much is {a} with {b}% VAT?", "add {b}% tax to {a}", "{a} plus {b}% tip",
        "{b}% more than {a}", "A price of {a} goes up by {b}%. What is it now?",
    ),
    "-": (
        "What is {b}% off {a}?", "{b}% off {a}", "{b} percent off {a}", "{a} minus {b}%",
        "{a} - {b}%", "Decrease {a} by {b}%.", "reduce {a} by {b} percent", "{a} less {b}%",
        "{a} reduced by {b}%", "{b}% less than {a}", "{a} with a {b}% discount",
        "A coat costs {a} and is {b}% off. What do I pay?",
    ),
}  # fmt: skip
NAMED: dict[tuple[str, str], tuple[str, ...]] = {
    ("×", "2"): ("double {a}", "twice {a}", "What is twice {a}?", "two times {a}", "{a} doubled"),
    ("×", "3"): ("triple {a}", "three times {a}", "What is {a} tripled?"),
    ("×", "same"): (
        "{a} squared", "What is {a} squared?", "{a}²", "{a}^2", "the square of {a}",
        "{a} to the power of 2",
    ),
    ("÷", "2"): ("half of {a}", "What is half of {a}?", "{a} halved", "half {a}"),
    ("÷", "3"): ("a third of {a}", "one third of {a}"),
    ("÷", "4"): ("a quarter of {a}", "one quarter of {a}", "a fourth of {a}"),
}  # fmt: skip
PLUS_FORMS = (
    "now add {}", "add {} to that", "plus {}?", "and plus {}?", "and if I add {}?", "+ {}",
    "and {} more?",
)  # fmt: skip
MINUS_FORMS = (
    "minus {}?", "now subtract {}", "and take away {}", "and minus {}?", "- {}", "less {}?",
)  # fmt: skip
TIMES_FORMS = (
    "and times {}?", "times {}", "now multiply that by {}", "multiply it by {}", "* {}",
    "what about {} times that?",
)  # fmt: skip
OVER_FORMS = (
    "divided by {}?", "now divide that by {}", "and divided by {}", "/ {}", "split that by {}",
)  # fmt: skip
SIGNS: dict[str, tuple[str, ...]] = {
    "+": ("+", "+", "+", "plus", "plus"),
    "-": ("-", "-", "-", "−", "–", "minus", "minus"),
    "×": ("×", "*", "x", "·", "times", "times", "multiplied by"),
    "÷": ("÷", "/", "/", ":", "divided by", "over"),
}
UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SHORT_WORDS = 12
"""Numbers up to this are written as words now and then, larger ones only where all are."""
MOST_IN_WORDS = 9999
PLAIN_PRODUCTS = 6
"""Forms of a product that are no story."""
TERM = re.compile(r"([\d.]+) ([-+×÷]) ([\d.]+)")
TOKEN = re.compile(r"(?:^|(?<=\())-[\d.]+|[\d.]+|% of|[-+×÷()%]")


@dataclass(frozen=True)
class Style:
    """How one person writes the numbers of one question."""

    thousands: str = ""
    comma: bool = False
    """A decimal comma."""
    before: str = ""
    after: str = ""
    """A currency's sign or name."""
    words: bool = False

    @classmethod
    def draw(cls, expression: str, random: Random) -> Style:
        """One that can be told from the others in this expression."""
        numbers = re.findall(r"[\d.]+", expression)
        places = [len(n.partition(".")[2]) for n in numbers]
        priced = not re.search(r"[×÷]|^-|\(-", expression)
        chance = random.random()
        if not any(places) and all(int(n) <= MOST_IN_WORDS for n in numbers) and chance < 0.05:
            return cls(words=True)
        thousands = random.choice(("", "", "", ",", ",", " ", "'")) if chance < 0.4 else ""
        if any(places) and 3 not in places and max(places) < 4:
            if chance < 0.06:
                return cls("" if thousands == "," else thousands, comma=True)
            if chance > 0.84 and max(places) <= 2 and priced:
                return cls(thousands, False, *random.choice(MONEY))
        elif not any(places) and chance > 0.97 and priced:
            return cls(thousands, False, *random.choice(MONEY))
        return cls(thousands)


MONEY = (("$", ""), ("$", ""), ("€", ""), ("£", ""), ("", " €"), ("", " euros"), ("", " dollars"))


def ask(problem: Problem, random: Random) -> str:
    """A question a person might type for `problem`."""
    style = Style.draw(problem.expression, random)
    single = TERM.fullmatch(problem.expression)
    if problem.operation == "percentage":
        percent, whole = problem.expression.split("% of ")
        a, b = _percent(percent, style), write_number(whole, random, style)
        question = random.choice(COMMANDS["%"]).format(a=a, b=b)
    elif problem.operation == "percent change" and random.random() < 0.8:
        whole, sign, percent = problem.expression.split()
        a, b = write_number(whole, random, style), _percent(percent.rstrip("%"), style)
        question = random.choice(CHANGES[sign]).format(a=a, b=b)
    elif single and random.random() < 0.6 and (named := _named(*single.groups())):
        question = random.choice(named).format(a=write_number(single[1], random, style))
    elif single and random.random() < 0.3:
        a, sign, b = single.groups()
        a, b = write_number(a, random, style), write_number(b, random, style)
        forms = COMMANDS[sign]
        if problem.operation == "decimal product":  # no stories of 0.5 tickets
            forms = forms[:PLAIN_PRODUCTS]
        question = random.choice(forms).format(a=a, b=b)
    else:
        question = random.choice(ASKS).format(write_expression(problem.expression, random))
    return disturb(question, random)


def _named(a: str, sign: str, b: str) -> tuple[str, ...]:
    """Forms of a product or quotient that has a name."""
    same = NAMED.get((sign, "same"), ()) if a == b else ()
    return same or NAMED.get((sign, b), ())


def _percent(percent: str, style: Style) -> str:
    return percent.replace(".", ",") if style.comma else percent


def write_expression(expression: str, random: Random) -> str:
    """The canonical expression in symbols or words, with the asker's own spacing.

    Within one expression all signs are words or all are symbols.
    """
    style = Style.draw(expression, random)
    words = style.words or random.random() < 0.3
    tight = not words and style.thousands != " " and random.random() < 0.4
    brackets = "(-" not in expression or random.random() < 0.6
    tokens = TOKEN.findall(expression)
    written: list[str] = []
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if token == "% of":
            written.append(random.choice(("% of ", "% of ", " percent of ")))
        elif token == "%":
            written.append(random.choice(("%", "%", " percent")))
        elif token in "()" and not brackets:
            continue
        elif token[0] == "-" and len(token) > 1:
            minus = random.choice(("minus ", "negative ")) if words else random.choice("--−")
            amount = write_number(token[1:], random, style)
            written.append(minus + (amount if words or amount[0].isdigit() else token[1:]))
        elif following[:1] == "%":
            written.append(_percent(token, style))
        elif token in SIGNS:
            choices = [s for s in SIGNS[token] if s.isalpha() == words or (words and " " in s)]
            choices = [s for s in choices if words or not s[0].isalpha() or s == "x"]
            sign = random.choice(choices)
            written.append(sign if tight and not sign.isalpha() else f" {sign} ")
        else:
            written.append(token if token in "()" else write_number(token, random, style))
    return re.sub(" +", " ", "".join(written)).strip()


def write_number(number: str, random: Random, style: Style = Style()) -> str:
    """A number as the style has it; small ones now and then as a word."""
    whole, point, decimals = number.partition(".")
    value = int(whole)
    if not point and (style.words or (value <= SHORT_WORDS and random.random() < 0.1)):
        return in_words(value, random)
    if len(whole) > 3 and style.thousands:
        whole = f"{value:,}".replace(",", style.thousands)
    if style.before or style.after:
        if random.random() < 0.7 or point:
            point, decimals = ".", decimals.ljust(2, "0")
        return style.before + whole + point + decimals + style.after
    return whole + ("," if style.comma and point else point) + decimals


def in_words(value: int, random: Random) -> str:
    """An integer up to MOST_IN_WORDS."""
    if value < len(UNITS):
        return UNITS[value]
    if value < 100:
        tens, ones = divmod(value, 10)
        joint = random.choice("---  ") if ones else ""
        return TENS[tens - 2] + joint + (UNITS[ones] if ones else "")
    size, name = (1000, "thousand") if value >= 1000 else (100, "hundred")
    high, low = divmod(value, size)
    text = f"{in_words(high, random)} {name}"
    if not low:
        return text
    joint = " and " if (size == 100 and random.random() < 0.6) or low < 100 <= size else " "
    return text + joint + in_words(low, random)
