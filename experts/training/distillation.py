"""White-box distillation: what a student can learn from a teacher's logits, relations and states.

Sources: Hinton et al. 2015 (arXiv 1503.02531) for the logits; MiniLMv2 (Wang et al. 2021, arXiv
2012.15828) for the relations, used for ternary students as in BitDistill (Wu et al. 2025, arXiv
2510.13998): at one layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Distillation:
    """Weights of the terms: L = L_CE + `logits` · L_KL + `relations` · L_rel + `hidden` · L_hid.
    A term of weight 0 is not computed."""

    logits: float = 1.0
    temperature: float = 2.0
    relations: float = 0.0
    hidden: float = 0.0


def logit_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """L_KL, summed over tokens: τ² · KL(softmax(z_t / τ) ‖ softmax(z_s / τ)), float32 `[]`.

    Logits are `[tokens, vocabulary]`. Where one vocabulary is padded further than the other, the
    ids that both have count. τ² keeps the gradient's size (Hinton et al., section 2.1).
    """
    width = min(student.shape[-1], teacher.shape[-1])
    ours = torch.log_softmax(student[:, :width].float() / temperature, -1)
    theirs = torch.log_softmax(teacher[:, :width].float() / temperature, -1)
    divergence = nn.functional.kl_div(ours, theirs, reduction="sum", log_target=True)
    return divergence * temperature**2


def relation_divergence(
    student: list[Tensor], teacher: list[Tensor], heads: int, mask: Tensor
) -> Tensor:
    """L_rel: the mean over q, k, v, relation heads and tokens of KL(R_teacher ‖ R_student).

    R = softmax(A Aᵀ / √d) over the tokens of a row, A being one projection's output, divided
    into `heads` heads of width d (the widths may differ between the models). Tensors are
    `[rows, length, width]`; `mask` is bool `[rows, length]`, False at padding. Float32 `[]`.
    """
    total = torch.zeros((), device=mask.device)
    for ours, theirs in zip(student, teacher, strict=True):
        a, b = _relations(ours, heads, mask), _relations(theirs, heads, mask)
        each = (b.exp() * (b - a)).masked_fill(~mask[:, None, None, :], 0.0).sum(-1)
        total = total + each.mean(1)[mask].mean()
    return total / len(student)


def state_distance(student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
    """L_hid: the mean over layers of Σ‖h_s − h_t‖² / Σ‖h_t‖² over the tokens. Float32 `[]`.

    Both lists hold `[rows, length, width]`, one for each layer of the student.
    """
    terms = []
    for ours, theirs in zip(student, teacher, strict=True):
        a, b = ours[mask].float(), theirs[mask].float()
        terms.append((a - b).square().sum() / b.square().sum())
    return torch.stack(terms).mean()


def matching_layers(student: int, teacher: int) -> list[int]:
    """For each layer 1…`student`, the teacher's layer (1…`teacher`) at the same relative depth."""
    return [math.ceil(layer * teacher / student) for layer in range(1, student + 1)]


def relation_heads(student: Any, teacher: Any) -> int:
    """The most heads that q, k and v of both configurations can be divided into."""
    return math.gcd(student.num_key_value_heads, teacher.num_key_value_heads)


class Projections:
    """Keeps the outputs of q, k and v at a model's last layer, from the last forward pass."""

    def __init__(self, model: Any) -> None:
        attention = model.get_decoder().layers[-1].self_attn
        self._seen: dict[str, Tensor] = {}
        for name in PROJECTIONS:
            getattr(attention, name).register_forward_hook(self._keeper(name))

    def take(self) -> list[Tensor]:
        """q, k and v, each `[rows, length, width]`; they are let go."""
        return [self._seen.pop(name) for name in PROJECTIONS]

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._seen[name] = output

        return keep


def _relations(states: Tensor, heads: int, mask: Tensor) -> Tensor:
    """log R, float32 `[rows, heads, length, length]`; padding has no weight."""
    rows, length, width = states.shape
    a = states.float().reshape(rows, length, heads, width // heads).transpose(1, 2)
    scores = a @ a.transpose(-1, -2) / math.sqrt(width // heads)
    return torch.log_softmax(scores.masked_fill(~mask[:, None, None, :], -1e9), -1)
