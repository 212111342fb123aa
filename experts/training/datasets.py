"""What the Trainer reads: rows of a whole run in order, or batches that are generated on the way.

Every item is a function of its index, so a run that goes on after a kill sees the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from experts.training.conversations import Example
from experts.training.encoding import Row, collate, encode_example, padded_length

LANES = 4
"""Pools that are open at a time. Loader processes divide them, so 1, 2 or 4 do no work twice."""
POOL_BATCHES = 64


class ShuffledRows(Dataset[Row]):
    """`count` rows: all of them in one order, then in another, and so on.

    Rows of similar length share a batch of `batch` rows, and the batches are shuffled: in order of
    length, as transformers' sampler has them, the model forgets the long while it sees the short.
    Each pass leaves out the random rows that fill no batch. The order depends on the seed and the
    number of the pass alone.
    """

    def __init__(self, rows: Sequence[Row], count: int, batch: int, seed: int) -> None:
        self._rows = rows
        self._count = count
        self._batch = min(batch, len(rows))
        self._seed = seed
        self._pass = -1
        self._order: list[int] = []

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Row:
        number, place = divmod(index, len(self._rows) // self._batch * self._batch)
        if number != self._pass:
            self._pass, self._order = number, self._shuffle(number)
        return self._rows[self._order[place]]

    def _shuffle(self, number: int) -> list[int]:
        random = Random(self._seed * 1_000_003 + number)
        order = random.sample(range(len(self._rows)), len(self._rows))
        order = order[: len(order) // self._batch * self._batch]
        pool = POOL_BATCHES * self._batch
        batches = []
        for start in range(0, len(order), pool):
            part = sorted(order[start : start + pool], key=lambda i: len(self._rows[i].ids))
            batches += [part[i : i + self._batch] for i in range(0, len(part), self._batch)]
        random.shuffle(batches)
        return [row for batch in batches for row in batch]


class GeneratedBatches(Dataset[dict[str, Tensor]]):
    """`count` batches of about `tokens` tokens with padding, from an endless source of examples.

    Pool p holds `POOL_BATCHES` batches of similar row lengths, drawn from `source(seed of p)`.
    Batch i belongs to lane i mod `LANES`; each lane goes through pools of its own.
    """

    def __init__(
        self,
        source: Callable[[int], Iterator[Example]],
        tokenizer: Any,
        count: int,
        tokens: int,
        seed: int,
    ) -> None:
        self._source = source
        self._tokenizer = tokenizer
        self._count = count
        self._tokens = tokens
        self._seed = seed
        self._open: dict[int, tuple[int, list[dict[str, Tensor]]]] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        turn, lane = divmod(index, LANES)
        round_, place = divmod(turn, POOL_BATCHES)
        number = round_ * LANES + lane
        if self._open.get(lane, (-1,))[0] != number:
            self._open[lane] = (number, self._pool(number))
        return self._open[lane][1][place]

    def _pool(self, number: int) -> list[dict[str, Tensor]]:
        rows: list[Row] = []
        total = 0
        for example in self._source(self._seed * 1_000_003 + number):
            rows.append(encode_example(example, self._tokenizer))
            total += padded_length(rows[-1])
            if total >= POOL_BATCHES * self._tokens and len(rows) >= POOL_BATCHES:
                break
        pad = self._tokenizer.pad_token_id
        batches = [collate(part, pad) for part in split_evenly(rows, POOL_BATCHES)]
        Random(number).shuffle(batches)
        return batches


def split_evenly(rows: Sequence[Row], parts: int) -> list[list[Row]]:
    """Rows sorted by length, in `parts` runs of about as many tokens with padding, none empty."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    ends = np.cumsum([padded_length(row) for row in ordered])
    cuts = [0, *np.searchsorted(ends, ends[-1] * np.arange(1, parts) / parts).tolist(), len(rows)]
    for i in range(1, parts):
        cuts[i] = min(max(cuts[i], cuts[i - 1] + 1), len(rows) - parts + i)
    return [ordered[a:b] for a, b in pairwise(cuts)]


def only_item(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The collator of ready batches: the loader's batch size is 1."""
    (batch,) = items
    return batch
