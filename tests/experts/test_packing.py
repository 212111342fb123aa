"""Packing: exact both ways, the layout of transformers, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experts.packing import (
    PackingError,
    count_values,
    pack,
    pack_numpy,
    pack_rows,
    unpack,
    unpack_numpy,
    unpack_rows,
)


@given(st.integers(1, 20), st.integers(1, 70), st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_round_trip_and_transformers_layout(quarter: int, columns: int, seed: int) -> None:
    from transformers.integrations.bitnet import pack_weights

    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-1, 2, (4 * quarter, columns), generator=generator, dtype=torch.int8)
    packed = pack(values)
    assert packed.dtype == torch.uint8
    assert packed.shape == (quarter, columns)
    assert torch.equal(packed, pack_weights(values.clone()))
    assert torch.equal(unpack(packed), values)
    assert np.array_equal(unpack_numpy(pack_numpy(values.numpy())), values.numpy())


@given(st.integers(1, 90), st.integers(1, 70), st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_any_number_of_rows(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-1, 2, (rows, columns), generator=generator, dtype=torch.int8)
    packed = pack_rows(values)
    assert packed.shape == (-(-rows // 4), columns)
    assert torch.equal(unpack_rows(packed, rows), values)
    assert not unpack(packed)[rows:].any()
    if rows % 4 == 0:
        assert torch.equal(packed, pack(values))


@given(st.integers(1, 20), st.integers(1, 70), st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_values_are_counted(quarter: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-1, 2, (4 * quarter, columns), generator=generator, dtype=torch.int8)
    expected = tuple(int((values == value).sum()) for value in (-1, 0, 1))
    assert count_values(pack(values)) == expected


@given(st.integers(1, 20), st.integers(1, 70), st.data())
@settings(deadline=None, max_examples=60)
def test_one_wrong_value_anywhere_is_found(quarter: int, columns: int, data: st.DataObject) -> None:
    packed = pack(torch.zeros(4 * quarter, columns, dtype=torch.int8))
    row, column = data.draw(st.integers(0, quarter - 1)), data.draw(st.integers(0, columns - 1))
    packed[row, column] |= 3 << 2 * data.draw(st.integers(0, 3))
    with pytest.raises(PackingError, match="not ternary"):
        unpack(packed)


def test_layout_of_one_byte() -> None:
    packed = pack(torch.tensor([[1], [0], [-1], [1]], dtype=torch.int8))
    assert packed.item() == 2 | 1 << 2 | 0 << 4 | 2 << 6


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
def test_rows_that_are_no_multiple_of_four_are_refused(rows: int) -> None:
    with pytest.raises(PackingError, match="multiple of 4"):
        pack(torch.zeros(rows, 3, dtype=torch.int8))


def test_values_that_are_not_ternary_are_refused() -> None:
    with pytest.raises(PackingError, match="-1, 0 and 1"):
        pack(torch.full((4, 2), 2, dtype=torch.int8))
    with pytest.raises(PackingError, match="not ternary"):
        unpack(torch.full((1, 2), 0b11, dtype=torch.uint8))
    with pytest.raises(PackingError, match="uint8"):
        unpack(torch.zeros(4, 4))
