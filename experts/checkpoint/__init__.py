"""Ternary checkpoints on disk: the `bitnet` format of Hugging Face, read strictly.

`tensors` knows the safetensors files, `layout` what the configuration asks for, `reading` puts
both together, `reference` makes a model of it; `writing` and `converting` write.
"""

from experts.checkpoint.converting import pack_checkpoint, unpack_checkpoint
from experts.checkpoint.errors import CheckpointError
from experts.checkpoint.layout import Layout
from experts.checkpoint.reading import (
    PackedWeight,
    Reader,
    TernaryCheckpoint,
    TernaryWeight,
    check,
    iterate,
    read_checkpoint,
)
from experts.checkpoint.reference import TernaryLinear, load_reference
from experts.checkpoint.tensors import WEIGHTS_FILE
from experts.checkpoint.writing import write_checkpoint

__all__ = [
    "WEIGHTS_FILE",
    "CheckpointError",
    "Layout",
    "PackedWeight",
    "Reader",
    "TernaryCheckpoint",
    "TernaryLinear",
    "TernaryWeight",
    "check",
    "iterate",
    "load_reference",
    "pack_checkpoint",
    "read_checkpoint",
    "unpack_checkpoint",
    "write_checkpoint",
]
