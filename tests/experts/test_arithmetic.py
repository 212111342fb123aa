"""The arithmetic expert's data: every step and answer is right, nothing of the evaluation leaks."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import islice, pairwise
from random import Random

import pytest

from experts.manifest import load_manifest
from experts.starter import arithmetic_folder
from experts.starter.arithmetic import questions, sampling
from experts.starter.arithmetic.answers import final_number, is_correct
from experts.starter.arithmetic.data import (
    BEYOND,
    BY_ZERO,
    NOT_ARITHMETIC,
    examples,
    follow_up,
)
from experts.starter.arithmetic.phrasing import (
    Style,
    ask,
    in_words,
    write_expression,
    write_number,
)
from experts.starter.arithmetic.problems import (
    Number,
    Problem,
    add,
    combine,
    divide,
    multiply,
    multiply_decimals,
    multiply_signed,
    percent_change,
    percentage,
    subtract,
)
from experts.starter.evaluation import load_questions

DIVIDED = re.compile(
    r"(\d+) ((?:\d:\d+[<>] )+)(?:(\d+) (\d+) ((?:\d+-\d-\d=\d )+))?> (\d+) (\d) (?:\d+|\.)"
)


def value(expression: str) -> Fraction:
    """The value of an expression of the expert's notation, by Python."""
    text = re.sub(r"^(\S+) ([-+]) ([\d.]+)%$", r"\1 \2 \1 * \3 / 100", expression.strip())
    text = text.replace("×", "*").replace("÷", "/").replace("% of ", " / 100 * ")
    text = re.sub(r"\d+(?:\.\d+)?", lambda number: f"Fraction('{number[0]}')", text)
    result: Fraction = eval(text, {"Fraction": Fraction})
    return result


def check_line(line: str, before: str = "") -> int:
    """Verify every equation in a line of working, and what is read off columns on it or on the line
    `before`; returns how many there were."""
    if match := re.fullmatch(r"(.+) ÷ (\d+) = (\d+) remainder (\d+)", line):
        quotient, remainder = int(match[3]), int(match[4])
        assert (quotient, remainder) == divmod(value(match[1]), int(match[2]))
        return 1
    if match := DIVIDED.fullmatch(line):
        check_quotient(*match.groups())
        return 1
    if match := re.fullmatch(r"(.*?) ?> ([\d.]+)", line):
        columns, digits = (match[1] or before).split(), match[2].replace(".", "")
        if ">" not in columns and "=" in "".join(columns):
            place = max(0, len(digits) - len(str(read_columns(columns)))) if match[1] else 0
            assert digits[:place] == "0" * place
            assert int(digits[place:][::-1]) == read_columns(columns)
        return sum(check_line(column) for column in match[1].split())
    if line.startswith("= ") or "=" not in line:
        return 0
    if line.startswith(("1:", "< 0: ")):
        return 0
    steps = [line] if re.search(r" [-+×÷] |%", line) else line.split()
    equations = [step.split("=", 1) for step in steps if "=" in step]
    for left, right in equations:
        assert value(left) == value(right), line
    return len(equations)


def check_quotient(
    of: str, tried: str, first: str | None, second: str, columns: str, left: str, digit: str
) -> None:
    """A step of a division, every number of it turned round."""
    current, remainder = int(of[::-1]), int(left[::-1])
    if first:
        assert of == first
        assert current - int(second[::-1]) == remainder
        worked = columns.split()
        assert sum(check_line(column) for column in worked) == len(worked)
        assert "".join(column[-1] for column in worked) == left
        for place, column in enumerate(worked):
            assert (column[1], column[3]) == (first[place], second[place])
    else:
        assert (remainder, digit) == (current, "0")
    signs = re.findall(r"(\d):(\d+)([<>])", tried)
    assert [int(number) for number, _, _ in signs] == [*range(1, len(signs) + 1)]
    assert all((int(value[::-1]) > current) == (sign == ">") for _, value, sign in signs)
    assert [sign for _, _, sign in signs].count("<") == int(digit)
    assert int(digit) == 9 or signs[-1][2] == ">"


def read_columns(columns: list[str]) -> int:
    """The number that columns stand for: the last digits, read backwards, and the last carry."""
    written = [column.partition("=")[2] for column in columns]
    return int(written[-1][:-1] + "".join(digits[-1] for digits in reversed(written)))


def check(problem: Problem) -> None:
    lines = problem.working.split("\n")
    assert lines[-1] == f"{problem.expression} = {problem.answer}"
    assert sum(check_line(line, before) for before, line in pairwise(["", *lines])) >= 1
    if "remainder" not in problem.answer:
        assert value(problem.expression) == Fraction(problem.answer)
    assert is_correct(problem.working, problem.answer)


@pytest.mark.parametrize("operation", list(sampling.MIX))
def test_every_step_and_answer_is_right(operation: str) -> None:
    random = Random(5)
    for _ in range(300):
        check(sampling.sample(random, operation))  # type: ignore[arg-type]


def test_the_checker_notices_faults() -> None:
    with pytest.raises(AssertionError):
        check_line("1+7+0=09 2+7+0=09")
    with pytest.raises(AssertionError):
        check_line("12 × 3 = 37")
    with pytest.raises(AssertionError):
        check_line("122 1:320< 2:640> 122 320 12-3-0=8 02-2-1=9 > 89 1 7")
    with pytest.raises(AssertionError):
        check_line("220 1:320< 2:640< 3:960< 4:290> 220 960 10-9-0=1 12-6-1=5 > 31 3 .")
    with pytest.raises(AssertionError):
        check_line("220 1:320> > 32 0 .")
    with pytest.raises(AssertionError):
        check_line("7×6+0=42 4×6+4=28 > 283")
    with pytest.raises(AssertionError):
        check_line("> 380", "1+7+0=08 2+6+0=08")


def test_workings_as_written() -> None:
    assert add(Number(4821), Number(37)).working == (
        "4821 + 37\n1284 73\n1+7+0=08 2+3+0=05 8+0+0=08 4+0+0=04\n> 8584\n4821 + 37 = 4858"
    )
    assert subtract(Number(15, 1), Number(125, 2)).working == (
        "1.5 - 1.25\n1.50 - 1.25\n05.1 52.1\n10-5-0=5 05-2-1=2 01-1-0=0\n> 52.0\n1.5 - 1.25 = 0.25"
    )
    assert subtract(Number(39), Number(3415)).working == (
        "39 - 3415\n93 5143\n09-5-0=4 03-1-0=2 10-4-0=6 10-3-1=6\n"
        "< 0: 5143 93\n15-9-0=6 11-3-1=7 04-0-1=3 03-0-0=3\n> 6733\n39 - 3415 = -3376"
    )
    assert divide(1288, 17).working == (
        "1288 ÷ 17\n1:710 2:430 3:150 4:860 5:580 6:201 7:911 8:631 9:351\n"
        "100 1:710> > 10 0 288\n210 1:710> > 21 0 88\n"
        "821 1:710< 2:430< 3:150< 4:860< 5:580< 6:201< 7:911< 8:631> 821 911"
        " 18-9-0=9 02-1-1=0 > 90 7 8\n"
        "890 1:710< 2:430< 3:150< 4:860< 5:580< 6:201> 890 580 08-5-0=3 09-8-0=1 > 31 5 .\n"
        "0075 left 13\n1288 ÷ 17 = 75 remainder 13"
    )
    assert add(Number(5), Number(7)).working == "5 + 7 = 12"
    assert subtract(Number(12), Number(345)).answer == "-333"
    assert subtract(Number(375, 2), Number(125, 1)).answer == "-8.75"
    assert multiply(347, 268).working.endswith("347 × 268 = 92996")
    assert divide(4821, 23).answer == "209 remainder 14"
    assert percentage(Number(18), Number(6450, 2)).working.endswith(
        "> 001611\n4: 0016.11\n= 11.6100\n18% of 64.50 = 11.61"
    )


def test_workings_of_other_kinds_as_written() -> None:
    assert multiply_decimals(Number(25, 1), Number(4)).working == (
        "2.5 × 4\n25 × 4\n52 4\n5×4+0=20 2×4+2=10 > 001\n1: 0.01\n= 10.0\n2.5 × 4 = 10"
    )
    assert percent_change(Number(80), "-", Number(20)).working.endswith(
        "= 16.00\n= 16\n80 - 16\n08 61\n10-6-0=4 08-1-1=6\n> 46\n= 64\n80 - 20% = 64"
    )
    assert combine(Number(-5), "+", Number(3)).working == "-5 + 3\n3 - 5 = -2\n-5 + 3 = -2"
    assert combine(Number(-5), "-", Number(3)).working == "-5 - 3\n-\n5 + 3 = 8\n-5 - 3 = -8"
    assert combine(Number(7), "-", Number(-5)).working == ("7 - (-5)\n7 + 5 = 12\n7 - (-5) = 12")
    assert combine(Number(-7), "-", Number(-5)).answer == "-2"
    assert multiply_signed(-4, 6).working == "-4 × 6\n-\n4 × 6 = 24\n-4 × 6 = -24"
    assert multiply_signed(-4, -6).answer == "24"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "zero"), (17, "seventeen"), (40, "forty"), (25, "twenty.five"), (300, "three hundred"),
     (342, "three hundred( and)? forty.two"), (1005, "one thousand and five"),
     (2500, "two thousand five hundred")],
)  # fmt: skip
def test_numbers_in_words(value: int, text: str) -> None:
    assert re.fullmatch(text, in_words(value, Random(1)))


def test_numbers_are_written_so_that_one_reads_them_back() -> None:
    random = Random(6)
    for _ in range(2000):
        a = Number(random.randrange(10**6), random.choice((0, 0, 1, 2, 3))).trimmed()
        style = Style.draw(str(a), random)
        written = write_number(str(a), random, style)
        if not any(character.isdigit() for character in written):
            continue
        read = re.sub(r"[^\d.]", "", written.replace(",", "." if style.comma else ""))
        assert Fraction(read) == Fraction(str(a)), (style, written)


def test_questions_show_what_is_asked() -> None:
    """Also in short forms: of a percentage, not its two numbers run together."""
    random = Random(4)
    for _ in range(200):
        written = write_expression("15% of 80", random)
        money = r"[$€£]?(80|eighty)(\.00)?( €| euros| dollars)?"
        assert re.fullmatch(rf"(15|fifteen)(%| percent) of {money}", written), written
        written = write_expression("80 - 20%", random)
        assert re.search(r"\b20(%| percent)$", written), written
        written = write_expression("7 - (-5)", random)
        assert re.search(r"[-−]5|(minus|negative) (5|five)", written), written


def test_the_columns_give_the_result() -> None:
    random = Random(9)
    for _ in range(300):
        a, b = random.randrange(10, 10**6), random.randrange(10, 10**6)
        columns = add(Number(a), Number(b)).steps[-2].split()
        assert read_columns(columns) == a + b
        low, high = sorted((a, b))
        columns = subtract(Number(high), Number(low)).steps[-2].split()
        assert read_columns(columns) == high - low


def test_no_example_contains_an_evaluation_problem() -> None:
    """The hash keeps them apart; here the files and the text of real examples are compared."""
    kept = set()
    random = Random(questions.EVALUATION_SEED)
    for operation, count in questions.EVALUATION_COUNTS.items():
        for _ in range(count):
            problem = sampling.sample_evaluation(random, operation)
            assert not problem.for_training()
            kept.add(problem.expression)
            ask(problem, random)
    for example in islice(examples(11), 3000):
        text = "\n".join([*(t.content for t in example.turns), example.prefix, example.target])
        for line in text.split("\n"):
            assert line.rpartition(" = ")[0] not in kept


def test_turned_operands_are_the_same_problem() -> None:
    random = Random(8)
    for _ in range(200):
        a, b = Number(random.randrange(10**5)), Number(random.randrange(10**5))
        assert add(a, b).for_evaluation() == add(b, a).for_evaluation()
        assert subtract(a, b).for_evaluation() == subtract(b, a).for_evaluation()


def test_examples_are_well_formed_and_reproducible() -> None:
    first = list(islice(examples(3), 400))
    assert first == list(islice(examples(3), 400))
    assert first != list(islice(examples(4), 400))
    for example in first:
        assert example.turns[-1].role == "user"
        assert example.target
        assert [turn.role for turn in example.turns[::2]] == ["user"] * len(example.turns[::2])
        final = (example.prefix + example.target).split("\n")[-1]
        assert " = " in final or final in (BEYOND, BY_ZERO, NOT_ARITHMETIC)


def test_follow_ups_start_from_the_result_before() -> None:
    random = Random(2)
    for _ in range(100):
        earlier, later = follow_up(random)
        result = final_number(earlier.answer)
        assert result is not None
        assert result in later.answer.split("\n")[-1]


def test_shipped_questions_are_what_the_code_writes() -> None:
    lines = load_questions(arithmetic_folder())
    assert len(lines) == 870
    written = list(questions.evaluation())
    assert [line.messages for line in lines] == [line["messages"] for line in written]
    asked = {line.messages[0]["content"] for line in lines if len(line.messages) == 1}
    manifest = load_manifest(arithmetic_folder())
    assert manifest.name == "arithmetic"
    assert len(manifest.examples) == 180
    assert not asked & {e.messages[-1].content for e in manifest.examples if len(e.messages) == 1}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("4821 + 3977 = 8798.", "8798"),
        ("The answer is 8,798", "8798"),
        ("3 - 9 = -6", "-6"),
        ("it is −6.5.", "-6.5"),
        ("7-5", "5"),
        ("about 12.50 euros", "12.50"),
        ("none", None),
    ],
)
def test_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("= 8798", "8798", True),
        ("= 8797", "8798", False),
        ("= 42.0", "42", True),
        ("4821 ÷ 7 = 688 remainder 5", "688 remainder 5", True),
        ("688 R 5", "688 remainder 5", True),
        ("688 with a remainder of 5.", "688 remainder 5", True),
        ("688 remainder 4", "688 remainder 5", False),
        ("5", "688 remainder 5", False),
        ("", "1", False),
        ("-5 + 3 = -2", "-2", True),
        ("That is beyond what I can compute reliably.", BEYOND, True),
        ("2 + 2 = 4", BEYOND, False),
    ],
)
def test_is_correct(text: str, answer: str, correct: bool) -> None:
    assert is_correct(text, answer) is correct
