"""The world behind the guard: keys, limits, an audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from server.edge.audit import AuditLog
from server.edge.guard import install_guard
from server.edge.keyring import Keyring
from server.edge.keys import Key, Limits, Scope, digest_of, new_secret
from server.settings import Settings
from tests.fake_meta import FakeMeta
from tests.fakes import FakeWorker, says
from tests.server.conftest import World, serving_world
from tests.server.workers.test_registration import Site, running


def make_key(
    name: str = "alice", scopes: Sequence[Scope] = ("chat",), **fields: Any
) -> tuple[Key, str]:
    """A key that no database knows, and its secret."""
    secret = new_secret()
    created = datetime.now(UTC)
    return Key(name, frozenset(scopes), created, digest=digest_of(secret), **fields), secret


def limited(requests: int | None = None, tokens: int | None = None) -> tuple[Key, str]:
    return make_key(limits=Limits(requests, tokens))


@dataclass
class Guarded:
    """A world that stands behind the guard, and the keys that it knows."""

    world: World
    keyring: Keyring
    audit: Path


@asynccontextmanager
async def guarded(folder: Path, *keys: Key, **settings: Any) -> AsyncIterator[Guarded]:
    """A world behind the guard that `settings` asks for; keys are asked for if any are given."""
    chosen = Settings(state_dir=folder, **({"keys": "on"} if keys else {}) | settings)
    keyring = Keyring()
    keyring.load(keys)
    audit = AuditLog(chosen.audit_log)

    def guard(app: FastAPI) -> None:
        install_guard(app, chosen, keyring, audit)

    async with serving_world(guard) as world:
        yield Guarded(world, keyring, chosen.audit_log)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@asynccontextmanager
async def site_with(folder: Path, **settings: Any) -> AsyncIterator[Site]:
    """A whole orchestrator with a fake meta and one fake expert."""
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(FakeMeta())
        expert = await stack.enter_async_context(FakeWorker(says("42"), "calc"))
        yield await stack.enter_async_context(running(meta, expert, folder, **settings))
