"""API keys on disk, and what a running server knows of them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.edge.keyring import NOTE_EVERY, Keyring
from server.edge.keys import PREFIX, Key, KeysError, KeyStore, Limits
from tests.server.conftest import until

HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    store = KeyStore(f"sqlite:///{tmp_path / 'registry.db'}")
    yield store
    store.close()


class Clock:
    """A time of day that a test moves."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time


def test_a_secret_is_kept_as_its_sha256_alone(store: KeyStore, tmp_path: Path) -> None:
    key, secret = store.create("alice", ["chat"])
    assert secret.startswith(PREFIX)
    assert len(secret) >= len(PREFIX) + 43, "fewer than 256 bits"
    on_disk = (tmp_path / "registry.db").read_bytes()
    assert secret.encode() not in on_disk
    assert secret.removeprefix(PREFIX).encode() not in on_disk
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in on_disk
    assert key.digest not in repr(key)


def test_secrets_differ(store: KeyStore) -> None:
    assert store.create("a", ["chat"])[1] != store.create("b", ["chat"])[1]


def test_a_key_comes_back_as_it_was_made(store: KeyStore) -> None:
    made, _ = store.create("bob", ["admin", "chat"], HOUR, Limits(5, 1000))
    assert store.keys() == [made]
    assert made.scopes == {"admin", "chat"}
    assert made.limits == Limits(5, 1000)
    assert made.expires == made.created + HOUR
    assert made.last_used is None


@pytest.mark.parametrize("name", ["", "a b", "-x", "a\nb", "x" * 64, "ä"])
def test_names_that_would_confuse_a_log_are_refused(store: KeyStore, name: str) -> None:
    with pytest.raises(KeysError, match="no name for a key"):
        store.create(name, ["chat"])


def test_a_name_in_use_is_refused_with_advice(store: KeyStore) -> None:
    store.create("alice", ["chat"])
    with pytest.raises(KeysError, match="trivium keys rotate alice"):
        store.create("alice", ["admin"])


def test_changing_a_key_that_is_not_there_is_an_error(store: KeyStore) -> None:
    for change in (lambda: store.revoke("eve"), lambda: store.rotate("eve", HOUR)):
        with pytest.raises(KeysError, match="no key is named 'eve'"):
            change()


def test_a_database_that_cannot_be_opened_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="could not open the keys' database"):
        KeyStore(f"sqlite:///{tmp_path / 'missing' / 'registry.db'}")


def find(store: KeyStore, secret: str, at: timedelta = timedelta()) -> Key | None:
    ring = Keyring(lambda: datetime.now(UTC) + at)
    ring.load(store.keys())
    return ring.find(secret)


def test_a_secret_finds_its_key_and_no_other_does(store: KeyStore) -> None:
    alice, secret = store.create("alice", ["chat"])
    store.create("bob", ["chat"])
    assert find(store, secret) == alice
    for wrong in (secret[:-1], secret + "x", alice.digest, PREFIX, "", "\udc80"):
        assert find(store, wrong) is None


def test_an_expired_key_counts_no_more(store: KeyStore) -> None:
    _, secret = store.create("alice", ["chat"], HOUR)
    assert find(store, secret, at=HOUR - timedelta(seconds=5))
    assert find(store, secret, at=HOUR + timedelta(seconds=5)) is None


def test_after_a_rotation_the_old_secret_counts_for_the_grace_period(store: KeyStore) -> None:
    _, first = store.create("alice", ["chat"], limits=Limits(3))
    key, second = store.rotate("alice", HOUR)
    assert key.limits == Limits(3)
    assert find(store, second)
    assert find(store, first)
    assert find(store, first, at=2 * HOUR) is None
    assert find(store, second, at=2 * HOUR)


def test_a_second_rotation_ends_the_first_secret_at_once(store: KeyStore) -> None:
    _, first = store.create("alice", ["chat"])
    _, second = store.rotate("alice", HOUR)
    _, third = store.rotate("alice", HOUR)
    assert [bool(find(store, s)) for s in (first, second, third)] == [False, True, True]


def test_rotation_does_not_outlive_the_key(store: KeyStore) -> None:
    _, first = store.create("alice", ["chat"], HOUR)
    _, second = store.rotate("alice", 3 * HOUR)
    assert find(store, first, at=2 * HOUR) is None
    assert find(store, second, at=2 * HOUR) is None


async def test_a_running_server_notices_new_and_revoked_keys(store: KeyStore) -> None:
    ring = Keyring()
    async with ring.following(store, every=0.02):
        _, secret = store.create("alice", ["chat"])
        await until(lambda: ring.find(secret))
        store.revoke("alice")
        await until(lambda: ring.find(secret) is None)


async def test_use_is_noted_every_minute_and_at_the_end(store: KeyStore) -> None:
    clock = Clock()
    _, secret = store.create("alice", ["chat"])
    ring = Keyring(clock)

    def used() -> datetime | None:
        return store.keys()[0].last_used

    async with ring.following(store, every=0.02):
        ring.find(secret)
        await asyncio.sleep(0.1)
        assert used() is None, "every look would be a write"
        first, clock.time = clock.time, clock.time + NOTE_EVERY
        await until(lambda: used() == first)
        ring.find(secret)
    assert used() == clock.time


async def test_an_unreadable_database_leaves_known_keys_in_force(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, secret = store.create("alice", ["chat"])
    ring, calls = Keyring(), []

    def fail() -> list[Key]:
        calls.append(1)
        raise KeysError("could not read the keys: gone")

    async with ring.following(store, every=0.01):
        monkeypatch.setattr(store, "keys", fail)
        with caplog.at_level(logging.ERROR):
            await until(lambda: len(calls) > 3)
        assert ring.find(secret)
        assert caplog.text.count("stay in force") == 1, "one fault, one line"
        monkeypatch.undo()
        store.revoke("alice")
        await until(lambda: ring.find(secret) is None)
