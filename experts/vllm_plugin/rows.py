"""Moving rows between packed ternary matrices without unpacking them."""

from __future__ import annotations

import torch
from torch import Tensor

from experts.kernels.native import empty_weights
from experts.packing import VALUES_PER_BYTE

ZEROS = 0b01010101
"""A byte of four zeros (codes are values + 1)."""


def zeros(height: int, inputs: int) -> Tensor:
    """`height` byte rows of packed zeros on torch's default device: uint8 `[height, inputs]`."""
    if torch.get_default_device().type == "cpu":
        return empty_weights(height, inputs).fill_(ZEROS)
    return torch.full((height, inputs), ZEROS, dtype=torch.uint8)


def copy_rows(target: Tensor, start: int, source: Tensor, first: int, count: int) -> None:
    """Copy matrix rows `first` to `first + count` of `source` to rows from `start` of `target`.

    Both are packed, uint8 `[rows/4, in]` on one device; `target` is changed in place. Row r of a
    matrix lies in byte row r mod height, at bits 2 · (r div height), where height is the number
    of byte rows: so rows are copied in runs that cross no quarter of either matrix.
    """
    if source.shape == target.shape and count == VALUES_PER_BYTE * len(source):
        target.copy_(source)
        return
    done = 0
    while done < count:
        to_quarter, to_row = divmod(start + done, target.shape[0])
        from_quarter, from_row = divmod(first + done, source.shape[0])
        run = min(count - done, target.shape[0] - to_row, source.shape[0] - from_row)
        codes = (source[from_row : from_row + run] >> (2 * from_quarter)) & 3
        rows = target[to_row : to_row + run]
        rows &= 0xFF ^ (3 << (2 * to_quarter))
        rows |= codes << (2 * to_quarter)
        done += run
