"""Host memory that a GPU copies from without waiting, and a stream aside of the steps'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

PIECE = 256 << 20
ALIGNMENT = 256
"""Bytes."""


class PinnedMemory:
    """Page-locked memory for one expert's tensors.

    It is taken in pieces of a power of two, because torch rounds each piece up to one, and keeps
    the pieces of an expert that is dropped for the next (`ATen/core/CachingHostAllocator.h`). A
    piece is not used again before the copies from it that are under way have been made.
    """

    def __init__(self, size: int, pin: bool = True) -> None:
        """For about `size` bytes."""
        self._piece = min(PIECE, 1 << max(size - 1, 1).bit_length())
        self._pin = pin
        self._free = torch.empty(0, dtype=torch.uint8)

    def hold(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor of the host or of a GPU; waits until it is made."""
        size = tensor.nbytes
        if size > len(self._free):
            piece = max(self._piece, size)
            self._free = torch.empty(piece, dtype=torch.uint8, pin_memory=self._pin)
        part = self._free[:size].view(tensor.dtype).view(tensor.shape)
        self._free = self._free[-(-size // ALIGNMENT) * ALIGNMENT :]
        return part.copy_(tensor)


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """On a GPU, what the calling thread does meanwhile does not queue up behind the steps."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device), torch.cuda.stream(_stream(device)):
        yield


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all experts: torch keeps freed memory of a GPU for the stream that used it."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
