"""Products with a bank's heads, `[vocabulary, hidden]` each, on the CPU.

vLLM's own choice of a matrix product is used (`dispatch_cpu_unquantized_gemm` in
`model_executor/layers/utils.py` of vLLM 0.32), so that an expert computes in a bank what it
computes alone: mostly oneDNN, on a copy in its own layout, twice as fast as torch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import linear
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

Product = Callable[[Tensor, Tensor, None], Tensor]


class Heads:
    """What has been prepared for each head, for as long as the head's tensor lives."""

    def __init__(self) -> None:
        self._products: dict[int, Product] = {}

    def prepare(self, table: Tensor) -> int:
        """Make the copy for a head in host memory, if there is none yet; its bytes."""
        if id(table) in self._products:
            return 0
        layer = nn.Module()
        layer.weight = nn.Parameter(table, requires_grad=False)
        dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
        product: Product = layer.cpu_linear  # type: ignore[assignment]
        self._products[id(table)] = product
        weakref.finalize(table, self._products.pop, id(table), None)
        return table.nbytes

    def product(self, x: Tensor, table: Tensor) -> Tensor:
        """`[samples, hidden]` to logits `[samples, vocabulary]`."""
        product = self._products.get(id(table))
        return linear(x, table) if product is None else product(x, table, None)
