"""The layer shapes that are measured: published models, as vLLM computes them (merged)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Matrix:
    """One linear layer, `[out, inputs]`."""

    name: str
    out: int
    inputs: int

    @property
    def weights(self) -> int:
        return self.out * self.inputs


@dataclass(frozen=True)
class Model:
    """A Llama-like model: `kv` is the width of keys and of values, `tied` shares the head."""

    name: str
    hidden: int
    mlp: int
    kv: int
    layers: int
    vocabulary: int
    tied: bool = False

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The linear layers of one block, q, k, v and gate, up merged."""
        return (
            Matrix("qkv", self.hidden + 2 * self.kv, self.hidden),
            Matrix("o", self.hidden, self.hidden),
            Matrix("gate_up", 2 * self.mlp, self.hidden),
            Matrix("down", self.hidden, self.mlp),
        )

    @property
    def linear_weights(self) -> int:
        """Weights of all linear layers but the head: those that are ternary."""
        return self.layers * sum(matrix.weights for matrix in self.matrices)

    @property
    def other_weights(self) -> int:
        """Embedding, head and norms, which stay in bf16."""
        tables = 1 if self.tied else 2
        return tables * self.vocabulary * self.hidden + (2 * self.layers + 1) * self.hidden


BITNET_2B = Model("BitNet-2B", 2560, 6912, 640, 30, 128_256, tied=True)
"""microsoft/bitnet-b1.58-2B-4T."""
LLAMA_3B = Model("3B", 3200, 8640, 3200, 26, 32_000)
"""The 3B model of the BitNet b1.58 paper (1bitLLM/bitnet_b1_58-3B)."""
LLAMA_7B = Model("7B", 4096, 11008, 4096, 32, 32_000)
LLAMA_70B = Model("70B", 8192, 28672, 1024, 80, 32_000)
