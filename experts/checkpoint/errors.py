"""The one error of checkpoints."""

from __future__ import annotations

from experts.errors import ExpertsError


class CheckpointError(ExpertsError):
    """A checkpoint that cannot be used; the message names the file or tensor and the fault."""
