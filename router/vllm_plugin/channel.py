"""What one engine step hands from the model class to the gate, inside one worker process.

vLLM calls `compute_logits` and then, for the same rows in the same order, the logits
processors. The model leaves its scores here; the gate picks them up. Nothing else may.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch

MAX_CAPTURED_REQUESTS = 4096


@dataclass
class Channel:
    """The last step's rows, and what is kept for requests that asked for it."""

    hidden: torch.Tensor | None = None
    """`[rows, features]`: of the last position of each request in the batch."""
    scores: torch.Tensor | None = None
    """`[3, rows, slots]` float32: log-odds of `router.head.QUESTIONS`; unused slots -inf."""
    likeliest: torch.Tensor | None = None
    """`[rows]`: the meta LLM's likeliest next token, before anything a client asks for."""
    captures: OrderedDict[str, dict[int, torch.Tensor]] = field(default_factory=OrderedDict)
    """Capture key → number of tokens written before → a row of float32, CPU: features
    `[features]`, or the log-odds `[2 * slots]` that decided there."""

    def capture(self, key: str, position: int, row: torch.Tensor) -> None:
        """Keep a row; a later one for the same position replaces it (chunked prefill)."""
        self.captures.setdefault(key, {})[position] = row.detach().float().cpu()
        while len(self.captures) > MAX_CAPTURED_REQUESTS:
            self.captures.popitem(last=False)

    def take(self, key: str) -> dict[int, torch.Tensor]:
        """Hand over and forget what was captured under `key`."""
        return self.captures.pop(key, {})


CHANNEL = Channel()
"""One engine a process (vLLM's own rule), hence one channel."""
