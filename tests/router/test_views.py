"""Second views: what is left when the form is taken away."""

from router.views import halves, views


def test_a_shared_preamble_is_left_out() -> None:
    form = "Choose the best answer among A, B and C.\n\n"
    found = views([f"{form}Which planet is the largest one?\n(A) Mars", f"{form}Who wrote Faust?"])
    assert found == ["Which planet is the largest one?", None]


def test_a_query_of_one_line_has_no_other_view() -> None:
    assert views(["What is the largest planet?", "Who wrote the play Faust?"]) == [None, None]


def test_choices_after_the_question_are_left_out() -> None:
    assert views(["Which planet is the largest?\nA. Mars\nB. Jupiter\nAnswer:"]) == [
        "Which planet is the largest?"
    ]


def test_halves_are_made_of_queries_with_enough_words() -> None:
    assert halves("Which planet is the largest one?") == ["Which planet is", "the largest one?"]
    assert halves("Who wrote Faust?") == []
