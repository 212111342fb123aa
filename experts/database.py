"""Databases, SQLite or PostgreSQL: how they are opened and read, and their failures in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

LOCKS = 0x7472
"""First half of the keys of our advisory locks in PostgreSQL; the second says what is locked."""
MIGRATING, CHANGING, FIRST_SLOT = 0, 1, 1000
"""Second halves: the tables' form; the registry's content; slot s has FIRST_SLOT + s."""
PATIENCE: dict[str, Any] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    # The same at the server, so that a machine that vanishes does not keep its locks for hours.
    "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3",
}
"""libpq's: how soon each side finds out that the other is gone (s; `tcp_user_timeout` in ms)."""


class DatabaseUnusable(SQLAlchemyError):
    """The database's URL names none that we can talk to; the message says what to do."""


@contextmanager
def database_errors(what: str, kind: type[Exception]) -> Iterator[None]:
    """Turn the database's errors into a `kind` that says that `what` could not be done, and why."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error)
        raise kind(f"could not {what}: {' '.join(reason.split())}") from error


def parse_url(url: str) -> URL:
    """A database's URL with the driver that we use. Raises DatabaseUnusable, and never shows the
    URL: there may be a password in it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise DatabaseUnusable(
            "TRIVIUM_DATABASE_URL is no database URL; write"
            " postgresql://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:////PATH/OF/FILE"
        ) from None
    if parsed.drivername in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("postgresql+psycopg", "sqlite"):
        return parsed
    raise DatabaseUnusable(
        f"TRIVIUM_DATABASE_URL names a database of kind {parsed.drivername!r}; it can be"
        " postgresql:// or sqlite:///"
    )


def open_engine(url: str) -> Engine:
    """SQLAlchemy's engine for a database; connects when it is used. Raises DatabaseUnusable."""
    parsed = parse_url(url)
    if parsed.drivername == "sqlite":
        return create_engine(parsed)
    try:
        return create_engine(parsed, pool_pre_ping=True, connect_args=PATIENCE)
    except ModuleNotFoundError:
        raise DatabaseUnusable(
            "PostgreSQL needs the package psycopg, which is not installed; run"
            " `pip install -e '.[postgres]'` in Trivium's checkout"
        ) from None


def is_postgres(engine: Engine | Connection) -> bool:
    return engine.dialect.name == "postgresql"


def alone(connection: Connection, what: int) -> None:
    """Wait until nobody else has `what` (such as MIGRATING), and have it until the transaction
    ends. SQLite lets one transaction write at a time anyway."""
    if is_postgres(connection):
        keys = {"space": LOCKS, "what": what}
        connection.execute(text("SELECT pg_advisory_xact_lock(:space, :what)"), keys)


@contextmanager
def consistent(engine: Engine) -> Iterator[Connection]:
    """A connection whose reads all see the database as it was at the first of them."""
    if is_postgres(engine):
        with engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ")
        return
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")  # Python's sqlite3 begins none for reading
        yield connection
