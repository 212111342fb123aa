"""One layer's matrices of several experts, in slots: each stays where it lies in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experts.kernels.groups import Groups
from experts.packing import VALUES_PER_BYTE


@dataclass(frozen=True)
class Weights:
    """What a layer is multiplied with (see `experts.kernels.ternary_linear`): `packed` uint8
    `[ceil(out / 4), in]`, `gamma` float32 `[out]`, `bias` `[out]` or None."""

    packed: Tensor
    gamma: Tensor
    bias: Tensor | None = None

    def check(self, outputs: int, inputs: int) -> None:
        """Raises ValueError unless they are a layer of that size, contiguous, on one device."""
        tensors = [t for t in (self.packed, self.gamma, self.bias) if t is not None]
        fits = (
            self.packed.shape == (-(-outputs // VALUES_PER_BYTE), inputs)
            and self.packed.dtype == torch.uint8
            and self.gamma.dtype == torch.float32
            and all(tensor.shape == (outputs,) for tensor in tensors[1:])
            and all(tensor.is_contiguous() for tensor in tensors)
            and len({tensor.device for tensor in tensors}) == 1
        )
        if not fits:
            shapes = [(tuple(t.shape), t.dtype) for t in tensors]
            raise ValueError(
                f"packed, gamma (and bias) do not fit a layer of {inputs} x {outputs}: {shapes}"
            )

    def addresses(self) -> tuple[int, int, int]:
        """Where packed, gamma and bias lie; 0 for a bias that is not there."""
        bias = 0 if self.bias is None else self.bias.data_ptr()
        return self.packed.data_ptr(), self.gamma.data_ptr(), bias


class Slots:
    """A layer of `inputs` x `outputs` with room for the weights of `count` experts.

    Putting weights into a slot copies nothing: the slot refers to them. An empty slot gives
    zeros.
    """

    def __init__(self, count: int, outputs: int, inputs: int) -> None:
        self.outputs, self.inputs = outputs, inputs
        self._weights: list[Weights | None] = [None] * count
        self._addresses = torch.zeros(3, count, dtype=torch.int64)
        self._bias_dtypes: set[torch.dtype] = set()

    def put(self, slot: int, weights: Weights) -> None:
        """Raises ValueError if the weights are not a layer of this size."""
        weights.check(self.outputs, self.inputs)
        self._weights[slot] = weights
        self._addresses[:, slot] = torch.tensor(weights.addresses())
        if weights.bias is not None:
            self._bias_dtypes.add(weights.bias.dtype)

    def clear(self, slot: int) -> None:
        """Let go of what is in a slot."""
        self._weights[slot] = None
        self._addresses[:, slot] = 0

    def __len__(self) -> int:
        return len(self._weights)

    def __getitem__(self, slot: int) -> Weights | None:
        return self._weights[slot]

    @property
    def pointers(self) -> tuple[int, int, int]:
        """Addresses of the addresses of packed, gamma and bias, int64, one for each slot."""
        start, size = self._addresses.data_ptr(), 8 * len(self._weights)
        return start, start + size, start + 2 * size

    def check(self, x: Tensor, groups: Groups) -> None:
        """Raises ValueError unless `x`, `[tokens, in]`, can be multiplied, so grouped."""
        if (
            x.ndim != 2
            or x.shape[1] != self.inputs
            or not groups.fit(x, len(self._weights))
            or self._bias_dtypes - {x.dtype}
        ):
            raise ValueError(
                f"x {tuple(x.shape)} {x.dtype}, in groups of {groups.order.numel()} tokens, does"
                f" not fit {len(self)} slots of {self.inputs} x {self.outputs}"
            )
