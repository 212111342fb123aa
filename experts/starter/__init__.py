"""The starter experts: small ternary models that ship with Trivium, and how they were made."""

from __future__ import annotations

from pathlib import Path


def arithmetic_folder() -> Path:
    """The folder of the arithmetic expert's manifest (entry point of `trivium.experts`)."""
    return Path(__file__).parent / "arithmetic"


def geography_folder() -> Path:
    """The folder of the geography expert's manifest (entry point of `trivium.experts`)."""
    return Path(__file__).parent / "geography"


def chemistry_folder() -> Path:
    """The folder of the chemistry expert's manifest (entry point of `trivium.experts`)."""
    return Path(__file__).parent / "chemistry"


def dates_folder() -> Path:
    """The folder of the dates expert's manifest (entry point of `trivium.experts`)."""
    return Path(__file__).parent / "dates"
