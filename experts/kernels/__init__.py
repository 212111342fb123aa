"""Products with packed ternary matrices: the fastest implementation that this machine has."""

from experts.kernels.dispatch import CHOICE, TORCH, active, grouped_ternary_linear, ternary_linear
from experts.kernels.groups import Groups
from experts.kernels.slots import Slots, Weights

__all__ = [
    "CHOICE",
    "TORCH",
    "Groups",
    "Slots",
    "Weights",
    "active",
    "grouped_ternary_linear",
    "ternary_linear",
]
