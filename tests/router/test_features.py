"""Which states the head reads."""

import pytest

from router.features import feature_fingerprint, feature_layers, feature_size


@pytest.mark.parametrize(("layers", "read"), [(30, (4, 8)), (32, (4, 9)), (4, (1,)), (2, ())])
def test_two_early_layers_are_read_where_there_are_any(layers: int, read: tuple[int, ...]) -> None:
    assert feature_layers(layers) == read


def test_a_checkpoint_that_was_expanded_before_reads_the_last_state_only() -> None:
    assert feature_size(576, ()) == 576
    assert feature_fingerprint({"fingerprint": "ab"}) == "ab"


def test_rows_of_other_features_have_another_fingerprint() -> None:
    assert feature_size(576, (4, 8)) == 3 * 576
    assert feature_fingerprint({"fingerprint": "ab", "layers": [4, 8]}) == "ab-4-8"
