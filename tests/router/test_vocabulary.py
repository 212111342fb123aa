"""The expert vocabulary: slots and token ids."""

import pytest

from router.vocabulary import ExpertVocabulary, expert_token


def test_slots_and_ids_are_inverse() -> None:
    vocabulary = ExpertVocabulary(first_id=100, slots=4)
    assert [vocabulary.token_id(slot) for slot in range(4)] == [100, 101, 102, 103]
    assert [vocabulary.slot(i) for i in (99, 100, 103, 104)] == [None, 0, 3, None]
    assert expert_token(3) == "<|expert_3|>"


@pytest.mark.parametrize("slot", [-1, 4])
def test_a_slot_that_was_not_reserved_is_refused(slot: int) -> None:
    with pytest.raises(ValueError, match="not one of the 4"):
        ExpertVocabulary(100, 4).token_id(slot)
