"""General queries and two-part questions."""

from collections import Counter

from router.background import (
    general_queries,
    near_misses,
    subject_questions,
    two_part_questions,
)


def test_general_queries_are_many_and_distinct() -> None:
    queries = general_queries()
    assert len(queries) >= 300
    assert len(set(queries)) == len(queries)


def test_two_part_questions_hold_both_parts_and_are_the_same_each_time() -> None:
    questions = two_part_questions(["Compute 1 + 2."], 20, seed=3)
    assert questions == two_part_questions(["Compute 1 + 2."], 20, seed=3)
    assert len(questions) == 20
    assert all("ompute 1 + 2." in question for question in questions)


def test_near_misses_are_many_and_some_have_choices() -> None:
    asked = near_misses()
    assert len(set(asked)) == len(asked) >= 100
    with_choices = [query for query in asked if "\nD. " in query]
    assert 30 <= len(with_choices) <= 70
    assert not any("|" in query for query in asked)
    assert not set(asked) & set(general_queries())


def test_every_subject_has_as_many_questions() -> None:
    asked = subject_questions()
    assert len({question.whole for question in asked}) == len(asked) == 640
    assert set(Counter(question.subject for question in asked).values()) == {8}
    with_choices = [question for question in asked if question.whole != question.bare]
    assert len(with_choices) == 240
    assert all(question.bare in question.whole for question in asked)
    assert not any("|" in question.whole or "\t" in question.whole for question in asked)
