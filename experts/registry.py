"""The registry on disk: which experts exist, their slots and their fitted rows. No torch.

Its version is a number that every change raises. Who decided something from what the registry was
says so with the version `seen`, and is told when it has changed since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from experts.database import consistent, database_errors, is_postgres, open_engine
from experts.manifest import Manifest
from experts.migrations import upgrade
from experts.tables import Background, Expert, RegistryVersion, Starter

CHANNEL = "trivium_registry"
"""Where PostgreSQL tells (NOTIFY) that the registry has changed."""
NO_META = ""
"""The `meta` of a row that must be learned anew."""


class RegistryError(RuntimeError):
    """The registry cannot do what was asked; the message says why."""


class RegistryUnavailable(RegistryError):
    """The database cannot be read or written."""


_database_errors = partial(database_errors, kind=RegistryUnavailable)


class NameInUse(RegistryError):
    """An expert of that name is registered already."""


class UnknownExpert(RegistryError):
    """No expert of that name is registered."""


class NoFreeSlot(RegistryError):
    """Every reserved expert token is taken."""


class RegistryChanged(RegistryError):
    """Somebody else changed the registry, or the expert, that a decision was based on."""


@dataclass(frozen=True)
class Choices:
    """What a person decides about an expert. `enabled`: whether it is called. `threshold`: the
    P(expert), against "no expert", from which it is; None: as learned."""

    enabled: bool = True
    threshold: float | None = None


NO_CHOICES = Choices()
"""Nothing was decided: the expert is called where it was learned to be."""


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
    version: int = 0
    """The registry's version that its last change made."""


@dataclass(frozen=True)
class RegistryState:
    """All of the registry at one moment. `experts` are in the order of their slots, `backgrounds`
    by meta LLM (bytes of a `router.head.Background`)."""

    version: int
    experts: Sequence[RegisteredExpert]
    backgrounds: Mapping[str, bytes]


CheckedRow = tuple[bytes, float | None, Mapping[str, int] | None]
"""A row with its accuracy and routes."""


class Registry:
    """Experts by name. Every change is one transaction; several servers may share the database."""

    def __init__(self, url: str) -> None:
        """Open or create the registry at `url` (SQLAlchemy form, e.g. `sqlite:///FILE` or
        `postgresql://USER@HOST/DATABASE`). Raises RegistryUnavailable."""
        with _database_errors("open the registry"):
            self._engine = open_engine(url)
            upgrade(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    def version(self) -> int:
        """The number of the present version."""
        with _database_errors("read the registry"), self._engine.connect() as connection:
            return connection.execute(select(RegistryVersion.number)).scalar_one()

    def state(self) -> RegistryState:
        """All of it, as it was at one moment."""
        with (
            _database_errors("read the registry"),
            consistent(self._engine) as connection,
            Session(connection) as session,
        ):
            version = session.scalars(select(RegistryVersion.number)).one()
            records = session.scalars(select(Expert).order_by(Expert.slot))
            experts = [load(record) for record in records]
            return RegistryState(version, experts, _backgrounds(session))

    def experts(self) -> list[RegisteredExpert]:
        """All registered experts, by slot."""
        with _database_errors("read the registry"), Session(self._engine) as session:
            return [load(r) for r in session.scalars(select(Expert).order_by(Expert.slot))]

    def get(self, name: str) -> RegisteredExpert:
        """The expert called `name`. Raises UnknownExpert."""
        with _database_errors("read the registry"), Session(self._engine) as session:
            return load(_get(session, name))

    def free_slot(self, slots: int, *, excluded: Collection[int] = ()) -> int:
        """The lowest of `slots` slots that is neither taken nor excluded. Raises NoFreeSlot."""
        taken = {expert.slot for expert in self.experts()} | set(excluded)
        for slot in range(slots):
            if slot not in taken:
                return slot
        raise NoFreeSlot(
            f"all {slots} expert slots are taken; remove an expert, or start the server with more"
            " (TRIVIUM_SLOTS), which expands the meta LLM again"
        )

    def add(
        self,
        manifest: Manifest,
        slot: int,
        row: bytes,
        meta: str,
        accuracy: float | None,
        routes: Mapping[str, int] | None = None,
        *,
        choices: Choices = NO_CHOICES,
        seen: int | None = None,
    ) -> RegisteredExpert:
        """Store an expert. Raises NameInUse if its name or slot is taken; RegistryChanged."""
        try:
            with self._change(seen) as (session, version):
                record = Expert(
                    name=manifest.name,
                    slot=slot,
                    manifest=manifest.model_dump(mode="json"),
                    row=row,
                    meta=meta,
                    accuracy=accuracy,
                    created=datetime.now(UTC).isoformat(),
                    enabled=choices.enabled,
                    threshold=choices.threshold,
                    routes=routes,
                    version=version,
                )
                session.add(record)
                session.flush()
                return load(record)
        except _Duplicate:
            raise NameInUse(
                f"an expert named {manifest.name!r} is registered already, or its slot was"
                " taken meanwhile; remove it first or choose another name"
            ) from None

    def update_row(
        self,
        name: str,
        row: bytes,
        meta: str,
        *,
        seen: int | None = None,
    ) -> RegisteredExpert:
        """Replace the fitted row of `name`, e.g. for another meta LLM; how it did with the row of
        before is forgotten. Raises UnknownExpert, RegistryChanged."""
        with self._change(seen) as (session, version):
            record = _get(session, name)
            record.row, record.meta, record.accuracy, record.routes = row, meta, None, None
            record.version = version
            return load(record)

    def update_rows(
        self,
        meta: str,
        rows: Mapping[str, CheckedRow],
        background: bytes,
        *,
        seen: int | None = None,
    ) -> None:
        """Replace experts' rows, accuracies and routes, and the background they belong to, at once.
        Rows that belong to the old one, those of other experts, belong to no meta LLM afterwards.
        Raises UnknownExpert, RegistryChanged."""
        with self._change(seen) as (session, version):
            session.merge(Background(meta=meta, data=background))
            for record in session.scalars(select(Expert).where(Expert.meta == meta)):
                record.meta, record.version = NO_META, version
            for name, (row, accuracy, routes) in rows.items():
                record = _get(session, name)
                record.row, record.accuracy, record.meta = row, accuracy, meta
                record.routes, record.version = routes, version

    def backgrounds(self) -> dict[str, bytes]:
        """The background (bytes of a `router.head.Background`) of each meta LLM that has one."""
        with _database_errors("read the registry"), Session(self._engine) as session:
            return _backgrounds(session)

    def choose(
        self, name: str, choices: Choices, *, expected: int | None = None
    ) -> RegisteredExpert:
        """Set what a person decides about an expert, if it still is at the version `expected`.
        Raises UnknownExpert, RegistryChanged."""
        with self._change() as (session, version):
            record = _get(session, name, expected)
            record.enabled, record.threshold = choices.enabled, choices.threshold
            record.version = version
            return load(record)

    def remove(self, name: str, *, expected: int | None = None) -> None:
        """Forget an expert and free its slot, if it still is at the version `expected`. Raises
        UnknownExpert, RegistryChanged."""
        with self._change() as (session, _):
            session.delete(_get(session, name, expected))

    def starter_seen(self, name: str) -> bool:
        """Whether a starter expert of that name was ever registered here."""
        with _database_errors("read the registry"), Session(self._engine) as session:
            return session.get(Starter, name) is not None

    def mark_starter(self, name: str, *, seen: bool = True) -> None:
        """Remember, or forget, that the starter expert `name` was registered."""
        with _database_errors("write to the registry"), Session(self._engine) as session:
            if seen:
                session.merge(Starter(name=name))
            elif (record := session.get(Starter, name)) is not None:
                session.delete(record)
            with suppress(IntegrityError):  # another server was faster
                session.commit()

    @contextmanager
    def _change(self, seen: int | None = None) -> Iterator[tuple[Session, int]]:
        """A transaction that makes a new version, and its number. Others that would change the
        registry wait until it ends. Raises RegistryChanged if the version is not `seen` any more.
        """
        with _database_errors("write to the registry"), Session(self._engine) as session:
            version = raise_version(session)
            if seen is not None and version != seen + 1:
                raise RegistryChanged(
                    "the registry was changed by another server meanwhile; try again"
                )
            try:
                yield session, version
                session.commit()
            except IntegrityError as error:
                raise _Duplicate from error


class _Duplicate(Exception):
    """Something that must be unique is there already."""


def raise_version(session: Session) -> int:
    """Begin a change: the new version's number, which others wait for from now on."""
    number = RegistryVersion.number
    raised = update(RegistryVersion).values(number=number + 1).returning(number)
    version = session.execute(raised).scalar_one()
    if is_postgres(session.connection()):
        session.execute(text(f"NOTIFY {CHANNEL}"))  # others hear it when this is committed
    return version


def load(record: Expert) -> RegisteredExpert:
    """An expert of the table."""
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
        version=record.version,
    )


def _get(session: Session, name: str, expected: int | None = None) -> Expert:
    record = session.get(Expert, name)
    if record is None:
        raise UnknownExpert(f"no expert named {name!r} is registered")
    if expected is not None and record.version != expected:
        raise RegistryChanged(
            f"the expert {name!r} was changed meanwhile: its version is {record.version}, not"
            f" {expected}; look at it again and repeat the change if it is still wanted"
        )
    return record


def _backgrounds(session: Session) -> dict[str, bytes]:
    return {record.meta: record.data for record in session.scalars(select(Background))}
