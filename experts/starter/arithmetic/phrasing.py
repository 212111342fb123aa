"""How people ask for a calculation: symbols, words, politeness, typos, everyday stories."""

from __future__ import annotations

import re
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
        "Add {a} and {b}.", "add {a} and {b}", "What is the sum of {a} and {b}?",
        "sum of {a} and {b}", "Sum {a} and {b}", "the sum of {a} and {b} is?", "add {a} to {b}",
        "What do {a} and {b} add up to?", "{a} added to {b}", "total of {a} and {b}?",
        "I had {a} points and won {b} more. How many points do I have now?",
        "A shop sold {a} apples on Monday and {b} on Tuesday. How many apples in all?",
        "One box weighs {a} kg and another {b} kg. What do they weigh together?",
    ),
    "-": (
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
    "twelve",
)  # fmt: skip
TERM = re.compile(r"([\d.]+) ([-+×÷]) ([\d.]+)")


def ask(problem: Problem, random: Random) -> str:
    """A question a person might type for `problem`."""
    single = TERM.fullmatch(problem.expression)
    if problem.operation == "percentage":
        percent, whole = problem.expression.split("% of ")
        question = random.choice(COMMANDS["%"]).format(a=percent, b=write_number(whole, random))
    elif single and random.random() < 0.3:
        a, sign, b = single.groups()
        a, b = write_number(a, random), write_number(b, random)
        question = random.choice(COMMANDS[sign]).format(a=a, b=b)
    else:
        question = random.choice(ASKS).format(write_expression(problem.expression, random))
    return disturb(question, random)


def write_expression(expression: str, random: Random) -> str:
    """The canonical expression in symbols or words, with the asker's own spacing.

    Within one expression all signs are words or all are symbols.
    """
    words = random.random() < 0.3
    tight = not words and random.random() < 0.4
    written = []
    for token in re.findall(r"[\d.]+|[-+×÷()]", expression):
        if token in SIGNS:
            choices = [s for s in SIGNS[token] if s.isalpha() == words or (words and " " in s)]
            choices = [s for s in choices if words or not s[0].isalpha() or s == "x"]
            sign = random.choice(choices)
            written.append(sign if tight and not sign.isalpha() else f" {sign} ")
        else:
            written.append(token if token in "()" else write_number(token, random))
    return re.sub(" +", " ", "".join(written)).strip()


def write_number(number: str, random: Random) -> str:
    """A number with or without thousands separators; small ones now and then as a word."""
    whole, point, decimals = number.partition(".")
    if not point and int(whole) < len(UNITS) and random.random() < 0.1:
        return UNITS[int(whole)]
    if len(whole) > 3 and random.random() < 0.2:
        whole = f"{int(whole):,}"
    return whole + point + decimals
