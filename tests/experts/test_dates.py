"""The dates expert's data: every step and answer is right, nothing of the evaluation leaks."""

from __future__ import annotations

import json
import re
from calendar import isleap
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date, datetime, timedelta
from itertools import islice
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from cron_descriptor import ExpressionDescriptor, Options

from experts.manifest import load_manifest
from experts.starter.dates import calendar, facts, limits, plans, questions, sampling
from experts.starter.dates.answers import is_correct
from experts.starter.dates.clocks import Zone, conversion
from experts.starter.dates.cron import Cron, draw_cron
from experts.starter.dates.data import NOT_DATES, SUBJECT, examples
from experts.starter.dates.follow_ups import draw_pair
from experts.starter.dates.phrasing import FORMS, SHORTS, Case, write_date
from experts.starter.dates.problems import WEEKDAYS, Problem
from experts.starter.dates.spans import Unit, days_between, shift, shifted_weekday
from experts.starter.evaluation import load_questions
from experts.starter.tokenizer import MAX_LENGTH, build_tokenizer

EQUATION = re.compile(r"(-?\d+(?:[-+×]\d+)*)=(-?\d+(?:[-+×]\d+)*)(?: ([-+]\d+)=(\d+))?(?![-+×])")
FOUND = re.compile(r"(\d{4}) (leap|common) (\d{3}) (\d\d):(\d{3})")
YEARS = re.compile(r"\d{4}:\d+(?: \d{4}:\d+)*")
LEAPS = re.compile(r"leaps (\d+):(\d+) (\d+):(\d+) (\S+)=\d+")
OPERATIONS = list(sampling.MIX)


def value(expression: str) -> int:
    """The value of a sum of products, by Python."""
    plain = re.sub(r"\b0*(\d+)", r"\1", expression.replace("×", "*"))
    result: int = eval(plain)
    return result


def month_begins(year: int, month: int) -> int:
    """The days of a year before a month."""
    return date(year, month, 1).timetuple().tm_yday - 1


def check_steps(problem: Problem) -> int:
    """Verify every equation of a working; returns how many there were."""
    checked = 0
    for line in problem.steps:
        # numbers turned round, between them the multiples that were tried
        if division := re.fullmatch(r"\d+(?: \d:\d+[<>])* (\d+)-(\d+)=(\d+) \d (?:\d+|\.)", line):
            first, second, left = (int(number[::-1]) for number in division.groups())
            assert first - second == left, (line, problem.working)
            checked += 1
            continue
        if found := FOUND.fullmatch(line):
            year, number, month, before = map(int, found.group(1, 3, 4, 5))
            assert month_begins(year, month) == before < number <= before + 31, problem.working
            assert found[2] == ("leap" if isleap(year) else "common")
            checked += 1
            continue
        if YEARS.fullmatch(line):
            years = [[int(number) for number in entry.split(":")] for entry in line.split()]
            for year, passed in years:
                assert abs(year - years[0][0]) == passed, problem.working
                checked += 1
            continue
        if leaps := LEAPS.fullmatch(line):
            for short, before in (map(int, leaps.group(1, 2)), map(int, leaps.group(3, 4))):
                assert len(range(0, short, 4)) == before, problem.working
        for left, right, back, result in EQUATION.findall(line):
            modulus = 7 if line.startswith("mod 7") else 10**9
            assert (value(left) - value(right)) % modulus == 0, (line, problem.working)
            if back:
                assert value(right) + value(back) == value(result), (line, problem.working)
            checked += 1
    return checked


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_step_is_right_and_the_last_line_says_the_answer(operation: Any) -> None:
    random = Random(5)
    checked = 0
    for _ in range(300):
        problem = sampling.sample(random, operation).problem
        checked += check_steps(problem)
        assert is_correct(problem.working, problem.answer), problem.working
        assert problem.working.count("\n") == len(problem.steps)
    worked_out = operation not in ("leap year", "cron to English", "English to cron")
    assert checked >= 300 if worked_out else checked == 0


def test_the_checker_notices_faults() -> None:
    problem = calendar.weekday_problem(date(2024, 3, 15))
    steps = tuple(step.replace("6+2=1", "6+2=2") for step in problem.steps)
    wrong = Problem("weekday", problem.request, steps, problem.sentence, problem.answer)
    with pytest.raises(AssertionError):
        check_steps(wrong)


def some_days(count: int) -> Iterator[date]:
    random = Random(17)
    yield from (date(1600, 1, 1), date(1900, 2, 28), date(2000, 2, 29), date(2399, 12, 31))
    for _ in range(count):
        yield sampling.draw_day(random)


def test_weekdays_as_numpy_counts_them() -> None:
    for day in some_days(400):
        since = int(np.datetime64(day, "D").astype(int))  # 1 January 1970 was a Thursday
        assert calendar.weekday_problem(day).answer == WEEKDAYS[(since + 4) % 7]


def test_numbers_in_the_year_and_iso_weeks_as_the_c_library_counts_them() -> None:
    for day in some_days(400):
        number = int(f"{day:%j}")
        assert calendar.number_in_year(day).answer == f"day {number}"
        assert calendar.date_of_number(day.year, number).answer == str(day)
        assert calendar.iso_week(day).answer == f"{day:%G-W%V}"


def test_leap_years_as_numpy_counts_them() -> None:
    for year in range(1600, 2400):
        days = int(
            (np.datetime64(f"{year + 1}-01-01") - np.datetime64(f"{year}-01-01")).astype(int)
        )
        assert calendar.leap_year(year).answer == ("yes" if days == 366 else "no")
        assert calendar.days_of_year(year).answer == f"{days} days"
        assert is_correct(calendar.leap_year(year).sentence, "yes" if days == 366 else "no")


def test_shifted_dates_as_numpy_counts_them() -> None:
    random = Random(3)
    for start in some_days(300):
        if not 1703 <= start.year <= 2296:
            continue
        count, unit = sampling.draw_shift(random)
        found = np.datetime64(shift(start, count, unit).answer)
        if unit in ("day", "week"):
            assert found == np.datetime64(start) + count * (7 if unit == "week" else 1)
        else:
            months = count * (12 if unit == "year" else 1)
            month = np.datetime64(start, "M") + months
            last = (month + 1).astype("datetime64[D]") - 1
            assert found == min(last, month.astype("datetime64[D]") + start.day - 1)


def test_days_between_as_numpy_counts_them() -> None:
    random = Random(4)
    for _ in range(300):
        start = sampling.draw_start(random)
        end = sampling.draw_later(start, random)
        days = int((np.datetime64(end) - np.datetime64(start)).astype(int))
        assert days_between(start, end).answer == (f"{days} day" if days == 1 else f"{days} days")
        weeks = calendar.weeks_of_days(days).answer
        found = [int(number) for number in re.findall(r"\d+", weeks)]
        assert found[0] * 7 + sum(found[1:]) == days


def test_times_as_zoneinfo_converts_them() -> None:
    keys = {key.rpartition("/")[2].replace("_", " "): key for key in facts.zone_keys()}
    places = [name for name in facts.fixed_zones() if name in keys]
    random = Random(6)
    for _ in range(300):
        source, target = random.sample(places, 2)
        minutes = random.randrange(24 * 60)
        here = datetime(2027, 6, 15, minutes // 60, minutes % 60, tzinfo=ZoneInfo(keys[source]))
        there = here.astimezone(ZoneInfo(keys[target]))
        problem = conversion(minutes, Zone(source), Zone(target))
        passed = (there.date() - here.date()).days
        if problem is None:
            assert abs(passed) == 2
            continue
        when = {-1: ", the day before", 0: "", 1: ", the next day"}[passed]
        assert problem.answer == f"{there:%H:%M}{when}"


def test_the_zones_are_those_of_tzdata() -> None:
    """Where tzdata has moved since, `python -m experts.starter.dates.facts` rewrites the file."""
    assert dict(facts._lines()) == facts.read_tzdata()
    assert "New York" in facts.varying_places()
    assert facts.fixed_zones()["Kolkata"] == 330
    assert "IST" in facts.ambiguous_abbreviations()


@pytest.mark.parametrize("minutes", [-570, -180, 0, 330, 825])
def test_offsets_are_read_as_they_are_written(minutes: int) -> None:
    assert facts.parse_offset(facts.write_offset(minutes)) == minutes


def test_expressions_and_their_english_mean_the_same() -> None:
    options = Options()
    options.use_24hour_time_format = True
    random = Random(7)
    for _ in range(300):
        cron = draw_cron(random)
        asked, written = sampling.to_english(cron, random), sampling.to_cron(cron, random)
        assert written.problem.answer == str(cron)
        english = str(ExpressionDescriptor(written.problem.answer, options))
        assert asked.problem.answer == english
        assert written.problem.steps == (f"{english}:",)


def test_plans_name_what_the_expression_names() -> None:
    random = Random(8)
    for _ in range(400):
        cron = draw_cron(random)
        plan = plans.write_plan(cron, random)
        named = {name for name in WEEKDAYS if name in plan}
        if re.fullmatch(r"[0-6](,[0-6])*", cron.weekday):
            assert named == {WEEKDAYS[int(number)] for number in cron.weekday.split(",")}
        elif cron.weekday == "*":
            assert not named
        if cron.day != "*":
            assert re.search(rf"\b{cron.day}(st|nd|rd|th)?\b", plan)
    assert plans.write_plan(Cron("30", "9", weekday="1"), Random(1)).count("9:30") == 1


def test_workings_as_written() -> None:
    assert calendar.weekday_problem(date(2024, 3, 15)).working == (
        "weekday of 2024-03-15, leap 15/31\n20:6 24:2 03:3 15:1\nmod 7: 6+2=1 1+3=4 4+1=5\n"
        "15 March 2024 is a Friday."
    )
    assert shift(date(2024, 1, 31), 1, "month").answer == "2024-02-29"
    assert shift(date(2024, 1, 31), -13, "month").working == (
        "2024-01-31 - 13 months, leap 31/31\n13=1×12+1\n01-01=00 +12=12\n1+1=2\n"
        "2024 - 2\n4202 2\n04-2-0=2 02-0-0=2 00-0-0=0 02-0-0=2\n> 2202\n= 2022\n"
        "2022 common 12: 31/31 31\n"
        "13 months before 31 January 2024 is 31 December 2022."
    )
    assert shift(date(2024, 2, 29), -1, "year").answer == "2023-02-28"
    assert shift(date(2023, 12, 31), 1, "day").working == (
        "2023-12-31 + 1 day, common 31/31\n2023-12-31 common 334+31=365\n"
        "365 + 1\n563 1\n5+1+0=06 6+0+0=06 3+0+0=03\n> 663\n= 366\n"
        "2023 common 366, over\n"
        "366 - 365\n663 563\n06-5-0=1 06-6-0=0 03-3-0=0\n> 100\n= 1\n"
        "2024 leap 001 01:000\n1 - 0 = 1\n"
        "1 day after 31 December 2023 is 1 January 2024."
    )
    assert shift(date(2024, 3, 15), -15, "day").working == (
        "2024-03-15 - 15 days, leap 15/31\n2024-03-15 leap 060+15=075\n"
        "75 - 15\n57 51\n05-5-0=0 07-1-0=6\n> 06\n= 60\n"
        "2024 leap 060 02:031\n60 - 31\n06 13\n10-1-0=9 06-3-1=2\n> 92\n= 29\n"
        "15 days before 15 March 2024 is 29 February 2024."
    )
    later = shifted_weekday(date(2024, 3, 15), 2, "week")
    assert later.sentence == "2 weeks after 15 March 2024 is 29 March 2024, a Friday."
    assert "Sunday 1964 leap 366+003-3=366\n" in calendar.iso_week(date(1965, 1, 3)).working
    monday = calendar.iso_week(date(2024, 12, 30)).working
    assert "Monday 365+3=368 leap 368-366=002 2025\n" in monday
    assert calendar.date_of_number(1960, 61).working == (
        "day 61 of 1960\n1960 leap 061 03:060\n"
        "61 - 60\n16 06\n01-0-0=1 06-6-0=0\n> 10\n= 1\nDay 61 of 1960 is 1 March 1960."
    )
    earlier = conversion(0, Zone("Kolkata"), Zone("CET"))
    assert earlier is not None
    assert earlier.working == (
        "00:00 Kolkata to CET\nKolkata is UTC+05:30\nCET is UTC+01:00\n"
        "00-30=-30 +60=30 00-1=-1 -1-05=-6 +24=18 the day before\n= 18:30\n30+00=30 18+01=19\n"
        "00:00 in Kolkata is 19:30 CET, the day before."
    )
    days = days_between(date(2023, 12, 25), date(2024, 1, 1))
    assert days.working.startswith(
        "days from 2023-12-25 to 2024-01-01, common 25/31, leap 1/31\n"
        "2024 - 2023\n4202 3202\n04-3-0=1 02-2-0=0 00-0-0=0 02-2-0=0\n> 1000\n= 1\n"
        "2023-12-25 common 334+25=359\n2024-01-01 leap 000+01=001\n"
        "leaps 23:6 24:6 6-6=0\n1×365=365 365+0=365\n"
    )
    assert days.sentence == "From 25 December 2023 to 1 January 2024 it is 7 days."
    century = days_between(date(1896, 3, 1), date(1904, 3, 1)).working
    assert "\nleaps 96:24 04:1 25-24+1-1=1\n" in century
    same_year = days_between(date(2024, 1, 1), date(2024, 3, 1)).working
    assert "\n> 0000\n= 0\n2024-01-01 leap 000+01=001\n" in same_year


def test_dates_are_written_so_that_one_reads_them_back() -> None:
    random = Random(9)
    for day in some_days(500):
        text = write_date(day, random)
        if slashed := re.match(r"(\d\d)/(\d\d)/(\d{4})(?: \((\w\w)/)?", text):
            first, second, year = map(int, slashed.groups()[:3])
            orders = {(first, second), (second, first)}
            if slashed[4]:
                orders = {(first, second) if slashed[4] == "dd" else (second, first)}
            read = {(a, b) for a, b in orders if b <= 12}
            assert read == {(day.day, day.month)}
            assert year == day.year
        else:
            assert str(day.year) in text
            assert re.search(rf"\b0?{day.day}(st|nd|rd|th)?\b", text)


def test_forms_have_the_fields_they_need() -> None:
    random = Random(10)
    seen = set()
    for _ in range(4000):
        case = sampling.sample(random)
        seen.add(case.form)
        item = case.item(random)
        assert item.answer == case.problem.working
        assert "{" not in item.question + item.short
        assert all("{" not in text for text in item.begun)
    assert seen == set(FORMS)
    assert set(SHORTS) == seen - {"leap year"}


def test_no_example_contains_an_evaluation_problem() -> None:
    """The hash keeps them apart; here the files and the text of real examples are compared."""
    kept, asked = set(), set()
    random = Random(questions.EVALUATION_SEED)
    for operation, count in questions.EVALUATION_COUNTS.items():
        if "cron" not in operation:  # an expression may stand inside another
            for _ in range(count):
                kept.add(sampling.sample_evaluation(random, operation).problem.request)
    for line in shipped_questions():
        asked.add("\n".join(message["content"] for message in line["messages"]))
    for example in islice(examples(11), 3000):
        text = "\n".join([*(t.content for t in example.turns), example.prefix + example.target])
        assert "\n".join(turn.content for turn in example.turns) not in asked
        assert (
            not {re.sub("(, (common|leap)( \\d+/\\d+)?)+$", "", line) for line in text.split("\n")}
            & kept
        )


def test_examples_are_well_formed_and_reproducible() -> None:
    first = list(islice(examples(3), 400))
    assert first == list(islice(examples(3), 400))
    assert first != list(islice(examples(4), 400))
    tokenizer = build_tokenizer()
    for example in first:
        assert [turn.role for turn in example.turns[::2]] == ["user"] * len(example.turns[::2])
        assert example.turns[-1].role == "user"
        assert example.target
        text = "".join(turn.content for turn in example.turns) + example.prefix + example.target
        assert len(tokenizer(text)["input_ids"]) < MAX_LENGTH / 2
        last = (example.prefix + example.target).split("\n")[-1]
        assert last[-1] in ".`", last


def test_follow_ups_go_on_from_the_turn_before() -> None:
    random = Random(2)
    for _ in range(300):
        case, question, problem = draw_pair(random)
        assert question
        check_steps(problem)
        assert is_correct(problem.working, problem.answer)
        if problem.request.endswith(" in weeks"):
            assert problem.request.split()[0] == case.problem.answer.split()[0]
        if case.form in ("after", "before") and problem.operation == "adding":
            assert problem.request.startswith(case.problem.answer)


def test_what_is_declined_does_not_exist_or_cannot_be_known() -> None:
    random = Random(12)
    answers = set()
    for _ in range(600):
        *working, answer = limits.out_of_range(random).answer.split("\n")
        answers.add(re.sub(r"\d+ \w+ \d{4}|\w+ \d{4}|of .*(?= change)|\d+", "…", answer))
        if match := re.fullmatch(r"(\w+) (\d{4}) has only (\d\d) days\.", answer):
            first = datetime.strptime(f"1 {match[1]} {match[2]}", "%d %B %Y").date()
            assert (first + timedelta(days=int(match[3]))).day == 1
            assert first.year >= 1600
            assert working[0].endswith(f"/{match[3]}, no such day")
        assert len(working) <= 7
    assert len(answers) > 10
    assert not any(limits.for_evaluation(SUBJECT.out_of_range(random)) for _ in range(300))


def shipped_questions() -> list[dict[str, Any]]:
    file = questions.FOLDER / "evaluation.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_shipped_questions_are_what_the_code_writes() -> None:
    lines = shipped_questions()
    assert lines == list(questions.evaluation())
    assert [asdict(question) for question in load_questions(questions.FOLDER)] == lines
    assert len(lines) >= 500
    assert sum(line["operation"] == "follow-up" for line in lines) >= 80
    asked = ["\n".join(message["content"] for message in line["messages"]) for line in lines]
    assert len(set(asked)) == len(asked)
    for line in lines:
        assert line["messages"][-1]["role"] == "user"
        assert is_correct(line["answer"], line["answer"])


def test_shipped_examples_are_what_the_code_writes() -> None:
    file = questions.FOLDER / "examples.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert lines == list(questions.examples())
    assert 160 <= len(lines) <= 180
    asked = {json.dumps(line["messages"]) for line in shipped_questions()}
    manifest = load_manifest(questions.FOLDER)
    assert manifest.name == "dates"
    assert len(manifest.examples) == len(lines)
    for line in lines:
        assert json.dumps(line["messages"]) not in asked


def test_a_case_asks_with_its_own_date() -> None:
    day = date(1999, 5, 3)
    case = Case(calendar.weekday_problem(day), "weekday", {"day": day})
    assert "1999" in case.item(Random(1)).question
    assert NOT_DATES.startswith("I can only help with dates")


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("15 March 2024 is a Friday.", "Friday", True),
        ("It was a Thursday. No: Friday", "Friday", True),
        ("Friday comes before Saturday", "Friday", False),
        ("Yes, 2024 is a leap year: it is divisible by 4.", "yes", True),
        ("1900 is not a leap year.", "no", True),
        ("1900 is a leap year.", "no", False),
        ("I think so", "yes", False),
        ("100 days after 15 March 2024 is 23 June 2024.", "2024-06-23", True),
        ("It is June 23rd, 2024.", "2024-06-23", True),
        ("It is 2024-06-24", "2024-06-23", False),
        ("31 February 2024", "2024-03-02", False),
        ("1 January 2021 is in ISO week 53 of 2020.", "2020-W53", True),
        ("2020-W53", "2020-W53", True),
        ("ISO week 53 of 2021", "2020-W53", False),
        ("It is day 75 of the year", "day 75", True),
        ("It is the 75th day of the year", "day 75", True),
        ("It is day 76", "day 75", False),
        ("From 1 May 2024 to 2 June 2024 it is 1,032 days.", "1032 days", True),
        ("it is 31 days", "32 days", False),
        ("285 days are 40 weeks and 5 days.", "40 weeks and 5 days", True),
        ("285 days are 40 weeks", "40 weeks and 5 days", False),
        ("14 days are 2 weeks", "2 weeks", True),
        ("09:15 in Kolkata is 22:45 in Lima, the day before.", "22:45, the day before", True),
        ("It is 10:45 PM on the previous day", "22:45, the day before", True),
        ("22:45 in Lima", "22:45, the day before", False),
        ("10:45 in Lima", "10:45", True),
        ("20:20 UTC-02:00 is 09:20 UTC+11:00, the next day.", "09:20, the next day", True),
        ("Tokyo is at UTC+9.", "UTC+09:00", True),
        ("Tokyo is at UTC-09:00 all year.", "UTC+09:00", False),
        ("At 09:30, Monday through Friday:\n`30 9 * * 1-5`", "30 9 * * 1-5", True),
        ("Use 30 9 * * 1-5.", "30 9 * * 1-5", True),
        ("`30 9 * * 1-6`", "30 9 * * 1-5", False),
        ("means: At 09:30, Monday through Friday.", "At 09:30, Monday through Friday", True),
        ("means: At 09:30, Monday through Saturday", "At 09:30, Monday through Friday", False),
        ("At 09:30, Monday through Friday, only in May.", "At 09:30, Monday through Friday", False),
        ("I do not know today's date.", "I do not know today's date.", True),
        ("Today is Monday.", "I do not know today's date.", False),
        ("", "Friday", False),
    ],
)
def test_is_correct(text: str, answer: str, correct: bool) -> None:
    assert is_correct(text, answer) is correct


@pytest.mark.parametrize("unit", ["day", "week", "month", "year"])
def test_back_and_forth(unit: Unit) -> None:
    """In the first 28 days of a month what was added can be taken away."""
    start = date(2024, 2, 10)
    end = date.fromisoformat(shift(start, 30, unit).answer)
    assert shift(end, -30, unit).answer == str(start)
