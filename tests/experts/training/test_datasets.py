"""The order of the data: a function of seed and index."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experts.starter.arithmetic.data import examples
from experts.starter.tokenizer import build_tokenizer
from experts.training.datasets import (
    LANES,
    POOL_BATCHES,
    GeneratedBatches,
    ShuffledRows,
    split_evenly,
)
from experts.training.encoding import Row, padded_length


def row(length: int) -> Row:
    return Row(np.full(length, length, dtype=np.int32), np.zeros(length, dtype=np.int32))


def generated(seed: int = 0, tokens: int = 128) -> GeneratedBatches:
    return GeneratedBatches(examples, build_tokenizer(), 10**6, tokens, seed)


def test_each_pass_is_an_order_of_its_own() -> None:
    rows = [row(n) for n in range(1, 41)]
    data = ShuffledRows(rows, 100, 4, seed=3)
    lengths = [len(data[i].ids) for i in range(100)]
    assert sorted(lengths[:40]) == sorted(lengths[40:80]) == list(range(1, 41))
    assert lengths[:40] != lengths[40:80]
    again = ShuffledRows(rows, 100, 4, seed=3)
    assert [len(again[i].ids) for i in (99, 41, 0)] == [lengths[i] for i in (99, 41, 0)]
    assert [len(ShuffledRows(rows, 40, 4, seed=4)[i].ids) for i in range(40)] != lengths[:40]


def test_a_batch_holds_rows_of_similar_length() -> None:
    data = ShuffledRows([row(n) for n in range(1, 401)], 400, 4, seed=0)
    lengths = np.array([len(data[i].ids) for i in range(400)]).reshape(100, 4)
    assert np.ptp(lengths, axis=1).mean() < 40
    means = lengths.mean(axis=1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3  # the batches are shuffled


def test_a_pass_leaves_out_what_fills_no_batch() -> None:
    data = ShuffledRows([row(n) for n in range(1, 11)], 18, 4, seed=0)
    lengths = [len(data[i].ids) for i in range(18)]
    assert len(set(lengths[:8])) == len(set(lengths[8:16])) == 8
    few = ShuffledRows([row(1), row(2)], 4, 8, seed=0)
    assert sorted(len(few[i].ids) for i in range(4)) == [1, 1, 2, 2]


def test_generated_batches_depend_on_their_index_alone() -> None:
    a, b = generated(), generated()
    indices = [0, 1, LANES, LANES * POOL_BATCHES, LANES * POOL_BATCHES + 1]
    first = [a[i]["input_ids"] for i in indices]
    for i in reversed(range(len(indices))):
        assert torch.equal(b[indices[i]]["input_ids"], first[i])
    assert not any(torch.equal(first[0], other) for other in first[1:])
    assert not torch.equal(generated(seed=1)[0]["input_ids"], first[0])


def test_every_lane_goes_through_pools_of_its_own() -> None:
    seen: list[int] = []

    def source(seed: int):  # type: ignore[no-untyped-def]
        seen.append(seed)
        return examples(seed)

    data = GeneratedBatches(source, build_tokenizer(), 10**6, 64, seed=0)
    for i in range(2 * LANES * POOL_BATCHES):
        data[i]
    assert sorted(seen) == list(range(2 * LANES))


@pytest.mark.parametrize("lengths", [range(1, 200), [500] + [1] * 30, [5] * 24, [900, 800] * 12])
def test_pools_are_split_into_batches_of_like_size(lengths: list[int]) -> None:
    rows = [row(n) for n in lengths]
    parts = split_evenly(rows, 24)
    assert len(parts) == 24
    assert all(parts)
    assert [len(r.ids) for part in parts for r in part] == sorted(lengths)
    largest = max(padded_length(r) for r in rows)
    mean = sum(padded_length(r) for r in rows) / 24
    assert max(sum(padded_length(r) for r in part) for part in parts) <= mean + largest
