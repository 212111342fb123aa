"""General queries and two-part questions."""

from router.background import general_queries, two_part_questions


def test_general_queries_are_many_and_distinct() -> None:
    queries = general_queries()
    assert len(queries) >= 300
    assert len(set(queries)) == len(queries)


def test_two_part_questions_hold_both_parts_and_are_the_same_each_time() -> None:
    questions = two_part_questions(["Compute 1 + 2."], 20, seed=3)
    assert questions == two_part_questions(["Compute 1 + 2."], 20, seed=3)
    assert len(questions) == 20
    assert all("ompute 1 + 2." in question for question in questions)
