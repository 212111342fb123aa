"""The rows of a step in blocks that have one expert each, as grouped products on GPUs want them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experts.kernels.groups import Groups


@dataclass(frozen=True)
class Blocks:
    """What vLLM's `moe_align_block_size` gives for one expert a row, int32.

    Attributes:
        rows: `[padded]`, the numbers of the rows, group after group; each group is filled up to
            whole blocks with the number of rows, which no row has.
        places: `[padded / size]`, the place of each block's expert.
        padded: `[1]`, the length of `rows`.
    """

    rows: Tensor
    places: Tensor
    padded: Tensor

    @classmethod
    def of(cls, groups: Groups, size: int, device: torch.device) -> Blocks:
        """Blocks of `size` rows on `device`. `groups.slots` are places."""
        count = groups.order.numel()
        lengths = groups.begin.diff()
        filled = -(-lengths // size) * size
        shifts = filled.cumsum(0) - filled - groups.begin[:-1]
        height = int(filled.sum())
        rows = torch.full((height,), count)
        rows[torch.arange(count) + shifts.repeat_interleave(lengths)] = groups.order
        places = groups.slots.repeat_interleave(filled // size)
        # One copy to the device. Rows come first: kernels read them 16 aligned bytes at a time.
        whole = send(torch.cat([rows, places, torch.tensor([height])]).int(), device)
        return cls(whole[:height], whole[height:-1], whole[-1:])


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the host on `device`: itself if it is there, else a copy that is made
    when the device comes to it, without waiting for it."""
    if tensor.device == device:
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # torch keeps this memory until the copy is made
    return tensor.to(device, non_blocking=True)
