"""What a model takes in memory: weights, KV cache, and what a vLLM process needs besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experts.plan.accelerators import Accelerator
from experts.plan.models import Model

TERNARY_BITS = 2
SCALE_BYTES = 4
"""Of one row of a ternary layer in memory: its scale, float32."""
TOKENIZER_BYTES = 4_180
"""Of one entry of the vocabulary in the memory of a server: its two processes, the API and the
engine, have the tokenizer and tables of it each. As `CPU_PROCESS_BYTES`, measured."""
BATCHED_TOKENS = 8192
"""vLLM's largest step on a data-centre GPU (`max_num_batched_tokens`)."""


@dataclass(frozen=True)
class Needs:
    """Bytes of one worker, of all its devices together."""

    weights: int
    kv_cache: int
    process: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.process + self.activations


def linear_bytes(model: Model, device: Accelerator) -> int:
    """Of the linear layers but the head."""
    if model.ternary:
        return model.linear * TERNARY_BITS // 8 + model.rows * SCALE_BYTES
    return model.linear * device.kept


def table_bytes(model: Model, device: Accelerator) -> int:
    """Of embedding, head and norms, with the copies that a CPU worker packs for its products:
    vLLM does so with both tables (`UnquantizedEmbeddingMethod.process_weights_after_loading`)."""
    copies = 2 if device.packs_tables else 1
    return (copies * model.tables + model.norms) * device.kept


def weight_bytes(model: Model, device: Accelerator) -> int:
    """All weights of `model`, as they lie in memory on `device`."""
    return linear_bytes(model, device) + table_bytes(model, device)


def bank_weight_bytes(members: list[Model], device: Accelerator, shared_table: bool) -> int:
    """Weights of a bank; `shared_table`: all have the same embedding, which is kept once."""
    tables = 1 if shared_table else len(members)
    return sum(linear_bytes(m, device) for m in members) + tables * table_bytes(members[0], device)


def kv_bytes_per_token(model: Model, device: Accelerator) -> int:
    """Keys and values of all layers: 2 · layers · kv_heads · head_dim · bytes of a number."""
    return 2 * model.layers * model.kv_heads * model.head_dim * device.kept


def process_bytes(model: Model, device: Accelerator, devices: int) -> int:
    """Of the server's processes before there is a model. On GPUs that is their memory alone, in
    which there is no tokenizer."""
    tokenizer = model.vocabulary * TOKENIZER_BYTES if device.is_cpu else 0
    return devices * device.process_bytes + tokenizer


def together(totals: Sequence[int], device: Accelerator) -> int:
    """Bytes of several workers on one device, of their own totals."""
    return sum(totals) - device.shared_bytes * max(0, len(totals) - 1)


def activation_bytes(model: Model, device: Accelerator, sequences: int) -> int:
    """The most that one step holds besides: hidden states and the gated MLP of a full prefill, and
    float32 logits with their probabilities for each sequence. An estimate from above."""
    if device.is_cpu:
        return 0  # in what was measured for the process
    widest = BATCHED_TOKENS * (2 * model.hidden + 2 * model.mlp) * device.kept
    return widest + 2 * sequences * model.vocabulary * 4


def worker_needs(
    models: list[Model],
    device: Accelerator,
    kv_tokens: int,
    sequences: int,
    devices: int = 1,
    shared_table: bool = False,
) -> Needs:
    """Of one vLLM on `devices` (tensor parallel): a single model, or a bank of several with one
    KV cache of `kv_tokens`."""
    model = models[0]
    return Needs(
        weights=bank_weight_bytes(models, device, shared_table),
        kv_cache=kv_tokens * kv_bytes_per_token(model, device),
        process=process_bytes(model, device, devices),
        activations=activation_bytes(model, device, sequences),
    )
