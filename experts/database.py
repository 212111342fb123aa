"""Databases that fail, in words for a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError


@contextmanager
def database_errors(what: str, kind: type[Exception]) -> Iterator[None]:
    """Turn the database's errors into a `kind` that says that `what` could not be done, and why."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error)
        raise kind(f"could not {what}: {reason}") from error
