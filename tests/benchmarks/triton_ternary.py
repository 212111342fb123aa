"""A plain Triton product with packed ternary weights (W1.58A8).

It stands in on a machine that has torch alone, so that there is a ternary figure; it is not tuned,
and Trivium does not serve with it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROUND = tl.constexpr(12582912.0)
"""1.5 · 2^23: adding and subtracting it rounds a float32 to the nearest integer."""
BYTE_ROWS, INPUTS = 32, 128
"""Rows of packed bytes, and inputs, of one tile; a byte row is four rows of weights."""


@triton.jit
def _quantize(x, x_q, scale, inputs, block: tl.constexpr):
    token = tl.program_id(0)
    places = tl.arange(0, block)
    inside = places < inputs
    row = tl.load(x + token * inputs + places, inside, 0.0).to(tl.float32)
    s = 127.0 / tl.maximum(tl.max(tl.abs(row), 0), 1e-5)
    rounded = (row * s + ROUND) - ROUND
    tl.store(x_q + token * inputs + places, rounded.to(tl.int8), inside)
    tl.store(scale + token, s)


@triton.jit
def _product(
    x_q,
    packed,
    sums,
    tokens,
    inputs,
    quarter,
    tile_tokens: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_inputs: tl.constexpr,
    splits: tl.constexpr,
):
    rows = tl.program_id(0) * tile_rows + tl.arange(0, tile_rows)
    token = tl.program_id(1) * tile_tokens + tl.arange(0, tile_tokens)
    known_token, known_row = token < tokens, rows < quarter
    sum0 = tl.zeros((tile_tokens, tile_rows), tl.int32)
    sum1 = tl.zeros((tile_tokens, tile_rows), tl.int32)
    sum2 = tl.zeros((tile_tokens, tile_rows), tl.int32)
    sum3 = tl.zeros((tile_tokens, tile_rows), tl.int32)
    for first in range(tl.program_id(2) * tile_inputs, inputs, splits * tile_inputs):
        places = first + tl.arange(0, tile_inputs)
        inside = places < inputs
        a = tl.load(
            x_q + token[:, None] * inputs + places[None, :],
            known_token[:, None] & inside[None, :],
            0,
        )
        four = tl.load(
            packed + rows[None, :] * inputs + places[:, None],
            known_row[None, :] & inside[:, None],
            0,
        )
        sum0 += tl.dot(a, (four & 3).to(tl.int8) - 1)
        sum1 += tl.dot(a, ((four >> 2) & 3).to(tl.int8) - 1)
        sum2 += tl.dot(a, ((four >> 4) & 3).to(tl.int8) - 1)
        sum3 += tl.dot(a, ((four >> 6) & 3).to(tl.int8) - 1)
    place = sums + token[:, None] * (4 * quarter) + rows[None, :]
    known = known_token[:, None] & known_row[None, :]
    tl.atomic_add(place, sum0, known)
    tl.atomic_add(place + quarter, sum1, known)
    tl.atomic_add(place + 2 * quarter, sum2, known)
    tl.atomic_add(place + 3 * quarter, sum3, known)


@triton.jit
def _rescale(sums, scale, gamma, y, rows, block: tl.constexpr):
    token = tl.program_id(0)
    row = tl.program_id(1) * block + tl.arange(0, block)
    inside = row < rows
    total = tl.load(sums + token * rows + row, inside, 0).to(tl.float32)
    value = total * (tl.load(gamma + row, inside, 0.0) / tl.load(scale + token))
    tl.store(y + token * rows + row, value.to(tl.bfloat16), inside)


def ternary_linear(x: Tensor, packed: Tensor, gamma: Tensor, programs: int) -> Tensor:
    """`experts.kernels.ternary_linear` for bf16 `[tokens, in]` and a whole number of byte rows;
    `programs` is how many should run at once (a few for each multiprocessor)."""
    tokens, inputs = x.shape
    quarter = packed.shape[0]
    x_q = torch.empty(tokens, inputs, dtype=torch.int8, device=x.device)
    scale = torch.empty(tokens, dtype=torch.float32, device=x.device)
    _quantize[(tokens,)](x, x_q, scale, inputs, triton.next_power_of_2(inputs))
    tile_tokens = min(64, max(16, triton.next_power_of_2(tokens)))
    tiles = (triton.cdiv(quarter, BYTE_ROWS), triton.cdiv(tokens, tile_tokens))
    splits = min(triton.cdiv(programs, tiles[0] * tiles[1]), triton.cdiv(inputs, 2 * INPUTS))
    sums = torch.zeros(tokens, 4 * quarter, dtype=torch.int32, device=x.device)
    _product[(*tiles, splits)](
        *(x_q, packed, sums, tokens, inputs, quarter),
        *(tile_tokens, BYTE_ROWS, INPUTS, splits),
    )
    y = torch.empty(tokens, 4 * quarter, dtype=torch.bfloat16, device=x.device)
    blocks = triton.cdiv(4 * quarter, 1024)
    _rescale[(tokens, blocks)](sums, scale, gamma, y, 4 * quarter, 1024)
    return y
