"""Where sentences of an answer end."""

import pytest

from router.sentences import ends_sentence, sentence_ends


@pytest.mark.parametrize("token", [".", "?", "!\n", ".”", ":", "\n\n", " it.", "。", '."'])
def test_these_tokens_end_a_sentence(token: str) -> None:
    assert ends_sentence(token)


@pytest.mark.parametrize("token", ["", " ", ",", " it", "3.1", "\nIt", ";"])
def test_these_do_not(token: str) -> None:
    assert not ends_sentence(token)


def test_positions_are_those_before_which_a_sentence_is_over() -> None:
    assert sentence_ends(["A", " fox", ".", " It", " runs", "!\n", "<|im_end|>"]) == [3, 6]


def test_the_end_of_the_turn_counts_without_a_full_stop() -> None:
    assert sentence_ends(["Paris", "<|im_end|>"]) == [1]


def test_the_first_token_is_no_end() -> None:
    assert sentence_ends(["<|im_end|>"]) == []
