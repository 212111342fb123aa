"""`trivium keys …`: the API keys of the server on this machine, straight in its database."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from server.commands.client import API_KEY, CommandError
from server.commands.configuration import load_settings
from server.edge.audit import LOCAL, AuditLog
from server.edge.keys import Key, KeysError, KeyStore, Limits, Scope, digest_of
from server.settings import Settings

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def create(
    name: str,
    scopes: Sequence[str],
    expires: str | None,
    rpm: int | None,
    tpm: int | None,
    as_json: bool,
) -> None:
    """Make a key and print its secret, the only time that it can be seen."""
    lifetime = duration(expires) if expires is not None else None
    settings, wanted = load_settings(), [_scope(scope) for scope in scopes]
    with _audited(settings, "keys.create", name) as store:
        key, secret = store.create(name, wanted, lifetime, Limits(rpm, tpm))
    _show(key, secret, as_json)
    if not settings.keys_required:
        _note(
            f"a server on {settings.host} asks for no keys unless it is started with"
            " `trivium serve --keys` or TRIVIUM_KEYS=on"
        )


def adopt(
    name: str,
    scopes: Sequence[str],
    expires: str | None,
    rpm: int | None,
    tpm: int | None,
    file: Path,
) -> None:
    """Store the key whose secret is in `file`. Nothing is done where it is stored already, so
    that every start of a deployment may ask for it; nor where it has another secret by now, for a
    key that was rotated may have had to be."""
    lifetime = duration(expires) if expires is not None else None
    settings, wanted = load_settings(), [_scope(scope) for scope in scopes]
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"the secret cannot be read: {error}") from None
    if (there := _digest(settings, name)) is None:
        try:
            with _audited(settings, "keys.create", name) as store:
                store.create(name, wanted, lifetime, Limits(rpm, tpm), secret)
        except CommandError:
            there = _digest(settings, name)  # by another replica, a moment ago
            if there is None:
                raise
    if there is None:
        _note(f"the key {name!r} is stored")
    elif there == digest_of(secret):
        _note(f"the key {name!r} is stored already")
    else:
        _note(
            f"the key {name!r} has another secret than {file}, and keeps it; to take the file's,"
            f" run `trivium keys revoke {name}` and this command again"
        )


def _digest(settings: Settings, name: str) -> str | None:
    """That of the key's secret; None if there is no such key."""
    with _store(settings) as store:
        return {key.name: key.digest for key in store.keys()}.get(name)  # noqa: SIM118 (no dict)


def rotate(name: str, grace: str, as_json: bool) -> None:
    """Make a new secret; the present one counts for `grace` longer."""
    period = duration(grace)
    with _audited(load_settings(), "keys.rotate", name) as store:
        key, secret = store.rotate(name, period)
    _show(key, secret, as_json)
    _note(f"the one before counts until {_when(key.old_until)}")


def revoke(name: str) -> None:
    """Take a key back."""
    with _audited(load_settings(), "keys.revoke", name) as store:
        store.revoke(name)
    print(f"{name} is revoked; a running server notices within seconds")


def list_keys(as_json: bool) -> None:
    """Print a table of all keys."""
    with _store(load_settings()) as store:
        keys = store.keys()
    if as_json:
        print(json.dumps([described(key) for key in keys], indent=2))
        return
    if not keys:
        print("there are no keys; make one with `trivium keys create NAME`")
        return
    table = Table("name", "scopes", "expires", "limits a minute", "created", "used", box=None)
    for key in keys:
        table.add_row(
            key.name,
            ", ".join(sorted(key.scopes)),
            _expiry(key),
            _limits(key.limits),
            _when(key.created),
            _when(key.last_used),
        )
    Console(highlight=False).print(table)


def duration(text: str) -> timedelta:
    """`90d`, `12h`, `30m`, `45s` or `2w` as a time span. Raises CommandError."""
    found = re.fullmatch(r"(\d{1,5})([smhdw])", text.strip().lower())
    if found is None:
        raise CommandError(f"{text!r} is no time span; write e.g. 90d, 12h or 30m")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def described(key: Key) -> dict[str, Any]:
    """A key for scripts: everything but what could stand for its secret."""
    return {
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created": key.created.isoformat(),
        "expires": key.expires.isoformat() if key.expires else None,
        "last_used": key.last_used.isoformat() if key.last_used else None,
        "old_secret_until": key.old_until.isoformat() if key.old_until else None,
        "requests_per_minute": key.limits.requests_per_minute,
        "tokens_per_minute": key.limits.tokens_per_minute,
    }


@contextmanager
def _store(settings: Settings) -> Iterator[KeyStore]:
    """The keys' database, made if there is none. Raises CommandError."""
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        store = KeyStore(settings.database)
        try:
            yield store
        finally:
            store.close()
    except (KeysError, OSError) as error:
        raise CommandError(str(error)) from None


@contextmanager
def _audited(settings: Settings, action: str, name: str) -> Iterator[KeyStore]:
    """The database for one change, with a line in the audit log however it ends."""
    outcome = "refused"
    try:
        with _store(settings) as store:
            yield store
        outcome = "ok"
    finally:
        AuditLog(settings.audit_log).write(LOCAL, action, name, outcome)


def _scope(name: str) -> Scope:
    for scope in get_args(Scope):
        if name == scope:
            return scope  # type: ignore[no-any-return]
    raise CommandError(f"there is no scope {name!r}; there are: {', '.join(get_args(Scope))}")


def _show(key: Key, secret: str, as_json: bool) -> None:
    """The secret alone on standard output, so that a script can take it."""
    if as_json:
        print(json.dumps({"key": secret, **described(key)}, indent=2))
        return
    print(secret)
    _note(
        f"this is the key {key.name!r}; keep it, it cannot be shown again. Clients send it as"
        f" `Authorization: Bearer …`, the trivium command takes it from {API_KEY}"
    )


def _note(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def _expiry(key: Key) -> str:
    if key.expires is None:
        return "never"
    return "expired" if key.expires <= datetime.now(UTC) else _when(key.expires)


def _limits(limits: Limits) -> str:
    parts = (
        (limits.requests_per_minute, "requests"),
        (limits.tokens_per_minute, "tokens"),
    )
    return ", ".join(f"{most} {what}" for most, what in parts if most is not None) or "none"


def _when(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC" if time else "–"
