"""The errors of `experts`: each message says what happened, to what, and what to do."""

from __future__ import annotations


class ExpertsError(ValueError):
    """Base of everything that a person can put right: a file, an option, a machine's lack."""
