"""Hugging Face `bitnet` packing: four ternary values in a byte.

A matrix `[out, in]` in {-1, 0, 1} is stored as uint8 `[out/4, in]` of values + 1; bits 2i and
2i + 1 of row r hold row r + i · out/4 (`transformers/integrations/bitnet.py`, `pack_weights`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from experts.errors import ExpertsError

VALUES_PER_BYTE = 4
TERNARY_CODES = 3
"""Bit patterns that stand for -1, 0 and +1; the fourth, both bits set, stands for nothing."""
LOW_BITS = 0b01010101
CODES = (torch.arange(256, device="cpu")[:, None] >> torch.arange(0, 8, 2, device="cpu")) & 3
"""The four codes in each of the 256 bytes."""


class PackingError(ExpertsError):
    """A matrix that cannot be packed, or bytes that hold no ternary matrix."""


def pack(values: Tensor) -> Tensor:
    """Pack int8 `[out, in]` in {-1, 0, 1} into uint8 `[out/4, in]`.

    Raises PackingError if `out` is not a multiple of 4 (a reader could not tell how many rows
    there are) or if a value is not ternary.
    """
    return torch.from_numpy(pack_numpy(values.detach().cpu().numpy()))


def unpack(packed: Tensor) -> Tensor:
    """Unpack uint8 `[out/4, in]` into int8 `[out, in]`. Raises PackingError."""
    check_packed(packed)
    rows, columns = packed.shape
    codes = torch.empty(VALUES_PER_BYTE, rows, columns, dtype=torch.uint8, device=packed.device)
    for i in range(VALUES_PER_BYTE):
        torch.bitwise_and(packed >> (2 * i), 3, out=codes[i])
    return codes.view(torch.int8).sub_(1).reshape(VALUES_PER_BYTE * rows, columns)


def check_packed(packed: Tensor) -> None:
    """Raises PackingError unless `packed` is uint8 `[out/4, in]` and holds ternary values only."""
    if packed.dtype != torch.uint8 or packed.ndim != 2:
        raise PackingError(f"packed weights are uint8 [out/4, in], not {_describe(packed)}")
    if bool((packed & (packed >> 1) & LOW_BITS).any()):  # a pair of bits with both set
        raise PackingError("the bytes hold a value that is not ternary (bit pattern 3)")


def count_values(packed: Tensor) -> tuple[int, int, int]:
    """How many values of a packed matrix are -1, 0 and +1."""
    per_byte = torch.stack([CODES.eq(code).sum(1) for code in range(TERNARY_CODES)])
    negative, zero, positive = (per_byte @ _count_bytes(packed)).tolist()
    return negative, zero, positive


def pack_rows(values: Tensor) -> Tensor:
    """`pack` for any number of rows: int8 `[out, in]` to uint8 `[ceil(out / 4), in]`, as if rows
    of zeros followed. What kernels read; on disk, `out` is a multiple of 4."""
    missing = -values.shape[0] % VALUES_PER_BYTE
    return pack(torch.nn.functional.pad(values, (0, 0, 0, missing)))


def unpack_rows(packed: Tensor, out: int) -> Tensor:
    """Undo `pack_rows`: the first `out` rows, int8 `[out, in]`."""
    return unpack(packed)[:out]


def pack_numpy(values: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """`pack` for numpy arrays, without torch's types."""
    if values.ndim != 2 or values.shape[0] % VALUES_PER_BYTE:
        raise PackingError(
            f"only a matrix whose rows are a multiple of {VALUES_PER_BYTE} can be packed,"
            f" not one of shape {list(values.shape)}"
        )
    if values.size and (values.min() < -1 or values.max() > 1):
        raise PackingError("only the values -1, 0 and 1 can be packed")
    quarters = (values + 1).astype(np.uint8).reshape(VALUES_PER_BYTE, -1, values.shape[1])
    shifts = np.arange(0, 8, 2, dtype=np.uint8).reshape(VALUES_PER_BYTE, 1, 1)
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(quarters << shifts, axis=0)
    return packed


def unpack_numpy(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """`unpack` for numpy arrays."""
    return unpack(torch.from_numpy(packed)).numpy()


def _count_bytes(packed: Tensor) -> Tensor:
    """How often each of the 256 bytes occurs, int64: a quick pass that makes no copy."""
    return torch.bincount(packed.flatten(), minlength=256).cpu()


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
