"""Which states of the meta LLM the expert-token head reads. No torch.

Of the position where a token is about to be written: the last hidden state, and those after the
layers at 2/15 and 4/15 of the depth (4 and 8 of 30). The last one knows what comes next, the early
ones what the query is about; together they tell more near misses apart than either (measured in
`tests/benchmarks/routing_representations.py`). All belong to one position, so that prefix caching
and chunked prefill change nothing, and the model computes them anyway. (The mean of early
attention values over the conversation tells still more apart, but a system prompt shifts it, and
with one the router gets worse: 87 against 91 % right.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DEPTHS = (2 / 15, 4 / 15)
LEAST_LAYERS = 4
"""A model that is shallower has no early layers."""


@dataclass(frozen=True)
class Features:
    """What makes up a feature vector: the last hidden state, then those after `layers` (numbers
    from 1)."""

    hidden_size: int
    layers: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Features:
        """Those of a checkpoint, from its config.json: what `expert_tokens` says, or, where it is
        not expanded yet, will say."""
        layout = config.get("expert_tokens") or feature_layout(config)
        return cls(config["hidden_size"], tuple(layout.get("layers", ())))

    @property
    def size(self) -> int:
        """Length of a feature vector."""
        return self.hidden_size * (1 + len(self.layers))

    def fingerprint(self, checkpoint: str) -> str:
        """What rows belong to: the checkpoint's fingerprint, and which of its states they read."""
        return "-".join([checkpoint, *map(str, self.layers)])


def feature_layout(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """What `expert_tokens` says of features, for a model with this config.json."""
    layers = int(config.get("num_hidden_layers") or 0)
    if layers < LEAST_LAYERS:
        return {"layers": []}
    return {"layers": sorted({max(1, round(layers * depth)) for depth in _DEPTHS})}
