"""Which hidden states of the meta LLM the expert-token head reads. No torch.

Of the position where a token is about to be written: the last hidden state, and those after the
layers at 2/15 and 4/15 of the depth (4 and 8 of 30). The last one knows what comes next, the early
ones what the query is about; together they tell more near misses apart than either (measured in
`tests/benchmarks/routing_representations.py`). All belong to one position, so that prefix caching
and chunked prefill change nothing, and the model computes them anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_DEPTHS = (2 / 15, 4 / 15)


def feature_layers(layers: int) -> tuple[int, ...]:
    """Numbers of the layers whose output is read beside the last, for a model of `layers`.

    None of a model that is too shallow to have early layers.
    """
    if layers < 4:
        return ()
    return tuple(sorted({max(1, round(layers * depth)) for depth in _DEPTHS}))


def feature_size(hidden_size: int, layers: Sequence[int]) -> int:
    """Length of a feature vector: the last hidden state, then one for each of `layers`."""
    return hidden_size * (1 + len(layers))


def feature_fingerprint(layout: Mapping[str, Any]) -> str:
    """What rows belong to: the checkpoint, and which of its states they read.

    `layout` is `expert_tokens` of an expanded checkpoint's config.json.
    """
    return "-".join([str(layout["fingerprint"]), *map(str, layout.get("layers", ()))])
