"""General traffic that is shipped."""

from pathlib import Path

import numpy as np
import pytest

from router.general import General
from router.shipped import MAX_ENDS, pack, shipped_general, unpack


def test_an_unknown_meta_llm_has_none() -> None:
    assert shipped_general("no such checkpoint") is None


@pytest.mark.parametrize("ends", [0, 10, 3 * MAX_ENDS + 7])
def test_what_is_packed_is_small_and_the_same(ends: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    start, near, many, topics = (
        rng.normal(size=(count, 8)).astype(np.float32) for count in (5, 3, ends, 6)
    )
    general = General(
        start=start,
        near=near,
        subject=np.array([0, 1, 80]),
        framed=near[1:],
        framed_of=np.array([1, 2]),
        ends=many,
        topics=topics,
        openings=(("Wie geht es?", "Gut."),),
    )
    path = tmp_path / "general.safetensors"
    path.write_bytes(pack(general))
    after = unpack(path)
    assert after.start.dtype == np.float32
    assert len(after.ends) <= MAX_ENDS
    assert path.stat().st_size < 2 * 8 * (5 + 3 + 2 + MAX_ENDS + 6) + 800
    assert after.openings == general.openings
    np.testing.assert_allclose(after.start, start, atol=2e-3)
    np.testing.assert_allclose(after.topics, topics, atol=2e-3)
    np.testing.assert_allclose(after.framed, near[1:], atol=2e-3)
    assert after.subject.tolist() == [0, 1, 80]
    assert after.framed_of.tolist() == [1, 2]
