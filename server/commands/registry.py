"""`trivium registry …`: the whole registry, and the API keys, to a file and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experts.backup import back_up
from experts.backup import restore as restore_from
from experts.registry import Registry, RegistryError
from experts.tables import TABLES
from server.commands.client import CommandError
from server.commands.configuration import load_settings
from server.edge.audit import LOCAL, AuditLog
from server.edge.keys import KEY_TABLES, KeysError, KeyStore
from server.settings import Settings

ALL_TABLES = (*TABLES.sorted_tables, *KEY_TABLES.sorted_tables)
SHOWN = {"experts": "experts", "backgrounds": "backgrounds", "api_keys": "API keys"}


def backup(file: Path) -> None:
    """Write everything in the database to `file`."""
    settings = load_settings()
    _make_tables(settings)
    print(f"{_counts(back_up(settings.database, ALL_TABLES, file))} are in {file}")


def restore(file: Path, replace: bool) -> None:
    """Make the database hold what `file` does; running servers follow."""
    settings, outcome = load_settings(), "refused"
    _make_tables(settings)
    try:
        counts = restore_from(settings.database, ALL_TABLES, file, replace=replace)
        outcome = "ok"
    finally:
        AuditLog(settings.audit_log).write(LOCAL, "registry.restore", str(file), outcome)
    print(f"{_counts(counts)} were restored from {file}")


def _make_tables(settings: Settings) -> None:
    """The tables as this version has them. Raises CommandError."""
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        Registry(settings.database).close()
        KeyStore(settings.database).close()
    except (RegistryError, KeysError, OSError) as error:
        raise CommandError(str(error)) from None


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[table]} {what}" for table, what in SHOWN.items())
