"""General queries, two-part questions, and where sentences end."""

from router.background import general_queries, sentence_ends, two_part_questions


def test_general_queries_are_many_and_distinct() -> None:
    queries = general_queries()
    assert len(queries) >= 200
    assert len(set(queries)) == len(queries)


def test_two_part_questions_hold_both_parts_and_are_the_same_each_time() -> None:
    questions = two_part_questions(["Compute 1 + 2."], 20, seed=3)
    assert questions == two_part_questions(["Compute 1 + 2."], 20, seed=3)
    assert len(questions) == 20
    assert all("ompute 1 + 2." in question for question in questions)


def test_sentence_ends_are_positions_before_which_a_sentence_is_over() -> None:
    tokens = ["A", " fox", ".", " It", " runs", "!\n", "<|im_end|>"]
    assert sentence_ends(tokens) == [3, 6]


def test_list_numbers_and_abbreviated_starts_are_no_ends() -> None:
    assert sentence_ends(["1", ".", " Foxes", " hunt"]) == []


def test_the_end_of_the_turn_counts_without_a_full_stop() -> None:
    assert sentence_ends(["Paris", "<|im_end|>"]) == [1]
