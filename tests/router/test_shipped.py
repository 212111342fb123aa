"""General traffic that is shipped."""

import numpy as np
import pytest
from safetensors.numpy import load

from router.fit import Evidence
from router.shipped import MAX_ENDS, pack, shipped_evidence


def test_an_unknown_meta_llm_has_none() -> None:
    assert shipped_evidence("no such checkpoint") is None


@pytest.mark.parametrize("ends", [0, 10, 3 * MAX_ENDS + 7])
def test_what_is_packed_is_small_and_the_same(ends: int) -> None:
    rng = np.random.default_rng(0)
    evidence = Evidence(
        rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(ends, 8)).astype(np.float32)
    )
    tensors = load(pack(evidence))
    assert tensors["start"].dtype == np.float16
    assert len(tensors["ends"]) <= MAX_ENDS
    np.testing.assert_allclose(tensors["start"], evidence.start, atol=2e-3)
