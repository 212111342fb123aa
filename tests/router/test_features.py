"""Which states the head reads."""

import pytest

from router.features import Features, feature_layout


@pytest.mark.parametrize(
    ("layers", "read"), [(30, [4, 8]), (32, [4, 9]), (4, [1]), (2, []), (None, [])]
)
def test_two_early_layers_are_read_where_there_are_any(layers: int | None, read: list[int]) -> None:
    assert feature_layout({"num_hidden_layers": layers}) == {"layers": read}


def test_a_model_that_is_not_expanded_yet_has_the_features_that_it_will_have() -> None:
    features = Features.of({"hidden_size": 576, "num_hidden_layers": 30})
    assert features.size == 3 * 576
    assert features.fingerprint("ab") == "ab-4-8"


def test_a_checkpoint_that_was_expanded_before_reads_the_last_state_only() -> None:
    config = {"hidden_size": 576, "num_hidden_layers": 30, "expert_tokens": {"fingerprint": "ab"}}
    features = Features.of(config)
    assert features.size == 576
    assert features.fingerprint("ab") == "ab"
