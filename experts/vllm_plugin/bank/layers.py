"""The layers of a bank: each has what its experts differ in, by place.

A layer's own parameters hold no expert. They have memory only while a checkpoint is loaded into
them (`shelf.py`), and that memory is then the expert's. Stands on the same interfaces of vLLM
0.32 as `experts/vllm_plugin/linear.py`, and on `layers/vocab_parallel_embedding.py` and
`layers/layernorm.py`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from experts.kernels import Slots, Weights, grouped_ternary_linear, ternary_linear
from experts.vllm_plugin.across_ranks import PEAK_COLUMNS, with_peak
from experts.vllm_plugin.bank.adapters import BankError
from experts.vllm_plugin.bank.heads import Heads
from experts.vllm_plugin.bank.step import Step, Steps
from experts.vllm_plugin.linear import BitNetLinearMethod
from experts.vllm_plugin.quantization import BitNetConfig
from experts.vllm_plugin.rows import ZEROS

Tensors = dict[str, Tensor]
"""What an expert has in one layer, by name, in host memory."""


class Places(Protocol):
    """A layer's part of the bank: `layer.bank`."""

    def put(self, place: int, tensors: Tensors) -> None:
        """Let tokens of the place be computed with an expert's tensors."""
        ...

    def clear(self, place: int) -> None:
        """Let go of the tensors in a place."""
        ...


class LinearPlaces:
    """Ternary matrices in host memory: a place refers to its expert's, and copies nothing."""

    def __init__(self, count: int, outputs: int, inputs: int) -> None:
        self.slots = Slots(count, outputs, inputs)

    def put(self, place: int, tensors: Tensors) -> None:
        self.slots.put(place, Weights(tensors["weight"], tensors["gamma"], tensors.get("bias")))

    def clear(self, place: int) -> None:
        self.slots.clear(place)

    def product(self, x: Tensor, step: Step) -> Tensor:
        """`[tokens, in]` to `[tokens, out]`, each token with its own expert's weights."""
        own = None if step.only is None else self.slots[step.only]
        if own is None:
            return grouped_ternary_linear(x, self.slots, step.groups)
        return ternary_linear(x, own.packed, own.gamma, own.bias)


class TablePlaces:
    """Embeddings or heads, each `[vocabulary, hidden]`; experts with the same one share it.

    Of a `head`, logits are computed too. On a GPU there is one copy of each table of the host that
    some place has. Memory for one is kept, so that experts which all share a table need no more
    than vLLM has reckoned with.
    """

    def __init__(self, count: int, like: Tensor, head: bool = False) -> None:
        self._empty = torch.zeros(1, like.shape[1], dtype=like.dtype, device=like.device)
        self._heads = Heads() if head and like.device.type == "cpu" else None
        self._tables = [self._empty] * count
        self._sources: list[Tensor | None] = [None] * count
        self._kept = None if like.device.type == "cpu" else like.detach()

    def put(self, place: int, tensors: Tensors) -> None:
        source = tensors["weight"]
        here = next((n for n, other in enumerate(self._sources) if other is source), None)
        table = None if here is None else self._tables[here]
        self.clear(place)
        self._tables[place] = self._copy(source) if table is None else table
        self._sources[place] = source

    def clear(self, place: int) -> None:
        table = self._tables[place]
        self._tables[place], self._sources[place] = self._empty, None
        unused = table is not self._empty and all(table is not other for other in self._tables)
        if unused and self._kept is None and table.device.type != "cpu":
            self._kept = table

    def _copy(self, source: Tensor) -> Tensor:
        """The table where the layer computes: itself on the CPU."""
        if self._kept is None:
            return source.to(self._empty.device, non_blocking=True)
        table, self._kept = self._kept, None
        return table.copy_(source, non_blocking=True)

    def prepare(self, table: Tensor) -> int:
        """Make a table of the host ready to be multiplied with, where that is what the layer is
        for; the bytes that this takes."""
        return 0 if self._heads is None else self._heads.prepare(table)

    def logits(self, x: Tensor, table: Tensor, rows: int) -> Tensor:
        """`[samples, hidden]` to `[samples, rows]`; an empty place gives zeros."""
        if table is self._empty:
            return x.new_zeros(len(x), rows)
        return linear(x, table) if self._heads is None else self._heads.product(x, table)

    def table(self, place: int) -> Tensor:
        return self._tables[place]

    def common(self, step: Step) -> Tensor | None:
        """The table of all rows of a step, if they have the same."""
        if step.only is not None:
            return self._tables[step.only]
        first, *others = (self._tables[place] for place in step.groups.slots.tolist())
        return first if all(table is first for table in others) else None


class NormPlaces:
    """The weights of a norm, `[places, size]`."""

    def __init__(self, count: int, like: Tensor) -> None:
        self.weight = torch.zeros((count, *like.shape), dtype=like.dtype, device=like.device)

    def put(self, place: int, tensors: Tensors) -> None:
        self.weight[place].copy_(tensors["weight"], non_blocking=True)

    def clear(self, place: int) -> None:
        self.weight[place].zero_()


class BankLinearMethod(BitNetLinearMethod):
    """Ternary layers of several experts."""

    def __init__(self, config: BitNetConfig, steps: Steps) -> None:
        super().__init__(config)
        self._step = steps.tokens
        if config.norm_eps is not None:
            raise BankError(
                "experts with use_rms_norm cannot be in a bank; give each a worker of its own"
            )

    def process_weights_after_loading(self, layer: Any) -> None:
        """Nothing: experts come later, each through the layer's loader."""

    def places(self, layer: Any, count: int) -> Places:
        """Room for the matrices of `count` experts."""
        return LinearPlaces(count, sum(layer.loader.sizes), layer.weight.shape[1])

    def tensors(self, layer: Any) -> Tensors:
        """What the loader has just put into the layer's own parameters, as a place takes it.
        Raises CheckpointError if something is missing."""
        layer.loader.check_all_loaded()
        gamma = layer.weight_scale.data.repeat_interleave(torch.tensor(layer.loader.sizes))
        found = {"weight": layer.weight.data, "gamma": gamma}
        if layer.split_input:
            found["weight"][:, -PEAK_COLUMNS:] = ZEROS
        if self.adds_bias(layer):
            bias = layer.bias.data
            found["bias"] = bias * gamma.to(bias.dtype) if self.config.scales_bias else bias
        return found

    def adds_bias(self, layer: Any) -> bool:
        """Whether this rank adds the layer's bias: where the input is split over the ranks, their
        outputs are added up, and the first one does."""
        return getattr(layer, "bias", None) is not None and not (
            layer.split_input and layer.tp_rank
        )

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`[tokens, in]` to `[tokens, out]`, each token with its own expert's weights and bias
        (`bias` is the layer's own parameter, which holds no expert's)."""
        y: Tensor = layer.bank.product(with_peak(x) if layer.split_input else x, self._step)
        return y


class BankEmbeddingMethod(UnquantizedEmbeddingMethod):  # type: ignore[misc]  # untyped to mypy
    """Embeddings and heads of several experts; `layer.bank` is a TablePlaces."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def create_weights(self, layer: Any, *args: Any, **named: Any) -> None:
        """As the base class. With tensor parallelism vLLM would look up the layer's own weight on
        CUDA, past `embedding`; there is no expert in that."""
        super().create_weights(layer, *args, **named)
        layer.use_fused_embedding = False

    def process_weights_after_loading(self, layer: Any) -> None:
        """Nothing: the matrix is not repacked, since experts' own are used."""

    def embedding(self, layer: Any, input_: Tensor) -> Tensor:
        """Ids `[tokens]` to `[tokens, hidden]`."""
        places: TablePlaces = layer.bank
        step = self._steps.tokens
        common = places.common(step)
        if common is not None:
            return _embed(input_, common)
        hidden = places.table(0).shape[1]
        return step.split(input_, hidden, lambda place, ids: _embed(ids, places.table(place)))

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Hidden states `[samples, hidden]` to logits `[samples, vocabulary]`."""
        places: TablePlaces = layer.bank
        step = self._steps.samples
        common = places.common(step)
        rows = layer.num_embeddings_per_partition
        if common is not None:
            return places.logits(x, common, rows)
        return step.split(x, rows, lambda place, own: places.logits(own, places.table(place), rows))


def _embed(ids: Tensor, table: Tensor) -> Tensor:
    """An empty place has a table of one row."""
    return embedding(ids if len(table) > 1 else torch.zeros_like(ids), table)


def divide_norm(norm: RMSNorm, step: Step) -> None:
    """Let `norm` multiply each token with its own expert's weight; `norm.bank` is a NormPlaces.
    vLLM's own code does the rest, and rounds as it does with one weight."""
    norm.pass_weight = norm.pass_weight_add = False

    def multiply(_: nn.Module, __: Any, output: Any) -> Any:
        normal, *rest = output if isinstance(output, tuple) else (output,)
        weight = step.select(norm.bank.weight)
        if step.only is None:  # a head's norm has heads between tokens and values
            weight = weight.view(weight.shape[0], *[1] * (normal.ndim - 2), -1)
        scaled = (normal.to(weight.dtype) * weight).to(normal.dtype)
        return (scaled, *rest) if rest else scaled

    norm.register_forward_hook(multiply)
