"""The registry on disk: which experts exist, their slots and their fitted rows. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import (
    JSON,
    Boolean,
    Engine,
    Float,
    Integer,
    LargeBinary,
    String,
    create_engine,
    select,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from experts.database import database_errors
from experts.manifest import Manifest
from experts.migrations import upgrade

NO_META = ""
"""The `meta` of a row that must be learned anew."""


class RegistryError(RuntimeError):
    """The registry cannot do what was asked; the message says why."""


_database_errors = partial(database_errors, kind=RegistryError)


class NameInUse(RegistryError):
    """An expert of that name is registered already."""


class UnknownExpert(RegistryError):
    """No expert of that name is registered."""


class NoFreeSlot(RegistryError):
    """Every reserved expert token is taken."""


@dataclass(frozen=True)
class Choices:
    """What a person decides about an expert. `enabled`: whether it is called. `threshold`: the
    P(expert), against "no expert", from which it is; None: as learned."""

    enabled: bool = True
    threshold: float | None = None


@dataclass(frozen=True)
class RegisteredExpert:
    """One registered expert as stored.

    `row` is the fitted head row (bytes of a `router.head.HeadRow`); `meta` says which meta LLM,
    and which form of rows, it belongs to.
    """

    name: str
    slot: int
    manifest: Manifest
    row: bytes
    meta: str
    accuracy: float | None
    """Share of held-out examples that the running meta worker routed to this expert."""
    created: datetime
    choices: Choices = Choices()
    routes: Mapping[str, int] | None = None
    """How many of those examples went where: names of experts, or "meta"."""


class _Base(DeclarativeBase):
    pass


class _Expert(_Base):
    __tablename__ = "experts"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    slot: Mapped[int] = mapped_column(Integer, unique=True)
    manifest: Mapped[dict[str, object]] = mapped_column(JSON)
    row: Mapped[bytes] = mapped_column(LargeBinary)
    meta: Mapped[str] = mapped_column(String(64))
    accuracy: Mapped[float | None] = mapped_column(Float, nullable=True)
    created: Mapped[str] = mapped_column(String(40))
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    threshold: Mapped[float | None] = mapped_column(Float, nullable=True)
    routes: Mapped[Mapping[str, int] | None] = mapped_column(JSON(none_as_null=True), nullable=True)


CheckedRow = tuple[bytes, float | None, Mapping[str, int] | None]
"""A row with its accuracy and routes."""


class _Background(_Base):
    """What stands for "no expert" beside the rows that belong to one meta LLM."""

    __tablename__ = "backgrounds"

    meta: Mapped[str] = mapped_column(String(64), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class _Starter(_Base):
    """A starter expert that was registered once; if a person removed it, it stays removed."""

    __tablename__ = "starters"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)


TABLES = _Base.metadata
"""What `experts/migrations` must make."""


class Registry:
    """Experts by name. Every change is one transaction; the only writer of the database."""

    def __init__(self, url: str) -> None:
        """Open or create the registry at `url` (SQLAlchemy form, e.g. `sqlite:///FILE`)."""
        self._engine: Engine = create_engine(url)
        with _database_errors("open the registry"):
            upgrade(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    def experts(self) -> list[RegisteredExpert]:
        """All registered experts, by slot."""
        with _database_errors("read the registry"), Session(self._engine) as session:
            return [_load(r) for r in session.scalars(select(_Expert).order_by(_Expert.slot))]

    def get(self, name: str) -> RegisteredExpert:
        """The expert called `name`. Raises UnknownExpert."""
        with _database_errors("read the registry"), Session(self._engine) as session:
            return _load(_get(session, name))

    def free_slot(self, slots: int, *, excluded: Collection[int] = ()) -> int:
        """The lowest of `slots` slots that is neither taken nor excluded. Raises NoFreeSlot."""
        taken = {expert.slot for expert in self.experts()} | set(excluded)
        for slot in range(slots):
            if slot not in taken:
                return slot
        raise NoFreeSlot(
            f"all {slots} expert slots are taken; remove an expert, or expand the meta LLM again"
            " with more slots"
        )

    def add(
        self,
        manifest: Manifest,
        slot: int,
        row: bytes,
        meta: str,
        accuracy: float | None,
        routes: Mapping[str, int] | None = None,
    ) -> RegisteredExpert:
        """Store an expert. Raises NameInUse if its name or slot is taken."""
        created = datetime.now(UTC)
        record = _Expert(
            name=manifest.name,
            slot=slot,
            manifest=manifest.model_dump(mode="json"),
            row=row,
            meta=meta,
            accuracy=accuracy,
            created=created.isoformat(),
            routes=routes,
        )
        with _database_errors("write to the registry"), Session(self._engine) as session:
            session.add(record)
            try:
                session.commit()
            except IntegrityError:
                raise NameInUse(
                    f"an expert named {manifest.name!r} is registered already, or its slot was"
                    " taken meanwhile; remove it first or choose another name"
                ) from None
        return RegisteredExpert(
            manifest.name, slot, manifest, row, meta, accuracy, created, routes=routes
        )

    def update_row(self, name: str, row: bytes, meta: str, accuracy: float | None) -> None:
        """Replace the fitted row of `name`, e.g. for another meta LLM. Raises UnknownExpert."""
        with _database_errors("write to the registry"), Session(self._engine) as session:
            record = _get(session, name)
            record.row, record.meta, record.accuracy = row, meta, accuracy
            session.commit()

    def update_rows(self, meta: str, rows: Mapping[str, CheckedRow], background: bytes) -> None:
        """Replace experts' rows, accuracies and routes, and the background they belong to, at once.
        Rows that belong to the old one, those of other experts, belong to no meta LLM afterwards.
        Raises UnknownExpert."""
        with _database_errors("write to the registry"), Session(self._engine) as session:
            session.merge(_Background(meta=meta, data=background))
            for record in session.scalars(select(_Expert).where(_Expert.meta == meta)):
                record.meta = NO_META
            for name, (row, accuracy, routes) in rows.items():
                record = _get(session, name)
                record.row, record.accuracy, record.meta = row, accuracy, meta
                record.routes = routes
            session.commit()

    def backgrounds(self) -> dict[str, bytes]:
        """The background (bytes of a `router.head.Background`) of each meta LLM that has one."""
        with _database_errors("read the registry"), Session(self._engine) as session:
            return {record.meta: record.data for record in session.scalars(select(_Background))}

    def choose(self, name: str, choices: Choices) -> RegisteredExpert:
        """Set what a person decides about an expert. Raises UnknownExpert."""
        with _database_errors("write to the registry"), Session(self._engine) as session:
            record = _get(session, name)
            record.enabled, record.threshold = choices.enabled, choices.threshold
            session.commit()
            return _load(record)

    def starter_seen(self, name: str) -> bool:
        """Whether a starter expert of that name was ever registered here."""
        with _database_errors("read the registry"), Session(self._engine) as session:
            return session.get(_Starter, name) is not None

    def mark_starter(self, name: str, *, seen: bool = True) -> None:
        """Remember, or forget, that the starter expert `name` was registered."""
        with _database_errors("write to the registry"), Session(self._engine) as session:
            record = session.get(_Starter, name)
            if seen and record is None:
                session.add(_Starter(name=name))
            elif not seen and record is not None:
                session.delete(record)
            session.commit()

    def remove(self, name: str) -> None:
        """Forget an expert and free its slot. Raises UnknownExpert."""
        with _database_errors("write to the registry"), Session(self._engine) as session:
            session.delete(_get(session, name))
            session.commit()


def _get(session: Session, name: str) -> _Expert:
    record = session.get(_Expert, name)
    if record is None:
        raise UnknownExpert(f"no expert named {name!r} is registered")
    return record


def _load(record: _Expert) -> RegisteredExpert:
    return RegisteredExpert(
        name=record.name,
        slot=record.slot,
        manifest=Manifest.model_validate(record.manifest),
        row=record.row,
        meta=record.meta,
        accuracy=record.accuracy,
        created=datetime.fromisoformat(record.created),
        choices=Choices(record.enabled, record.threshold),
        routes=record.routes,
    )
