"""`trivium keys …`, the key that other commands send, and a server that will not start open."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from server.cli import app
from server.commands import chat, doctor
from server.commands.client import CommandError
from server.commands.keys import duration
from server.commands.serve import check_keys
from server.edge.keyring import Keyring
from server.edge.keys import PREFIX, KeyStore
from server.settings import Settings
from tests.server.guarded import guarded, make_key


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the commands keep their state in."""
    monkeypatch.setenv("TRIVIUM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path / "state"


def trivium(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def keys(*words: str) -> Result:
    result = trivium("keys", *words)
    assert result.exit_code == 0, result.exception
    return result


def found(secret: str) -> str | None:
    """Whose key a server would take `secret` for."""
    store, ring = KeyStore(Settings().database), Keyring()
    ring.load(store.keys())
    store.close()
    key = ring.find(secret)
    return key.name if key else None


def test_a_key_is_created_listed_rotated_and_revoked(state: Path) -> None:
    created = keys("create", "alice", "--expires", "90d", "--rpm", "5")
    first = created.stdout.strip()
    assert re.fullmatch(re.escape(PREFIX) + r"[\w-]{43}", first), "a script cannot take it"
    assert "cannot be shown again" in created.stderr
    assert found(first) == "alice"

    listed = keys("list").stdout
    expiry = datetime.now(UTC) + timedelta(days=90)
    for shown in ("alice", "chat", "5 requests", f"{expiry:%Y-%m-%d}"):
        assert shown in listed
    assert first not in listed

    rotated = keys("rotate", "alice", "--grace", "1h")
    second = rotated.stdout.strip()
    assert "the one before counts until" in rotated.stderr
    assert (found(first), found(second)) == ("alice", "alice")
    third = keys("rotate", "alice", "--grace", "0s").stdout.strip()
    assert (found(first), found(second), found(third)) == (None, None, "alice")

    assert "alice is revoked" in keys("revoke", "alice").stdout
    assert found(third) is None
    assert "there are no keys" in keys("list").stdout

    audit = (state / "logs" / "audit.log").read_text()
    actions = [json.loads(line)["action"] for line in audit.splitlines()]
    assert actions == ["keys.create", "keys.rotate", "keys.rotate", "keys.revoke"]
    assert PREFIX not in audit


def test_json_is_for_scripts() -> None:
    made = json.loads(
        keys("create", "ci", "--scope", "admin", "--scope", "chat", "--tpm", "9", "--json").stdout
    )
    assert found(made["key"]) == "ci"
    assert made["scopes"] == ["admin", "chat"]
    listed = json.loads(keys("list", "--json").stdout)
    assert [entry["tokens_per_minute"] for entry in listed] == [9]
    assert "key" not in listed[0]
    assert "digest" not in str(listed)
    assert found(json.loads(keys("rotate", "ci", "--json").stdout)["key"]) == "ci"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "a b"), "no name for a key"),
        (("create", "a", "--scope", "root"), "there are: chat, admin"),
        (("create", "a", "--expires", "soon"), "write e.g. 90d"),
        (("rotate", "nobody"), "no key is named 'nobody'"),
        (("revoke", "nobody"), "trivium keys list"),
    ],
)
def test_mistakes_are_told_in_words(words: tuple[str, ...], said: str) -> None:
    result = trivium("keys", *words)
    assert result.exit_code != 0
    assert isinstance(result.exception, CommandError)
    assert said in str(result.exception)


def test_a_refused_change_is_in_the_audit_log(state: Path) -> None:
    trivium("keys", "revoke", "nobody")
    line = json.loads((state / "logs" / "audit.log").read_text())
    assert (line["object"], line["outcome"]) == ("nobody", "refused")


def test_who_makes_a_key_for_a_server_that_asks_for_none_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "TRIVIUM_KEYS=on" in keys("create", "a").stderr
    monkeypatch.setenv("TRIVIUM_KEYS", "on")
    assert "TRIVIUM_KEYS=on" not in keys("create", "b").stderr


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("45s", timedelta(seconds=45)),
        ("30m", timedelta(minutes=30)),
        (" 12H ", timedelta(hours=12)),
        ("90d", timedelta(days=90)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_time_spans(text: str, span: timedelta) -> None:
    assert duration(text) == span


@pytest.mark.parametrize("text", ["", "d", "-1d", "1.5h", "1y", "1 d", "9999999d"])
def test_no_time_spans(text: str) -> None:
    with pytest.raises(CommandError):
        duration(text)


# ---------------------------------------------------------------- serve


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"keys": "on"}])
def test_a_server_that_asks_for_keys_does_not_start_without_one(settings: Any) -> None:
    with pytest.raises(CommandError, match=r"trivium keys create.*--no-keys"):
        check_keys(Settings(**settings))
    keys("create", "old", "--expires", "0s")
    with pytest.raises(CommandError, match="there is none"):
        check_keys(Settings(**settings))
    keys("create", "alice")
    check_keys(Settings(**settings))


@pytest.mark.parametrize("settings", [{}, {"host": "0.0.0.0", "keys": "off"}])
def test_a_server_that_asks_for_none_starts_without_keys(settings: Any) -> None:
    check_keys(Settings(**settings))


def test_serve_refuses_before_it_starts_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr("server.commands.serve.create_app", lambda *a, **k: started.append(a))
    monkeypatch.setattr("server.commands.serve.prepare_meta", lambda *a: started.append(a))
    monkeypatch.setattr("server.commands.serve.check_port", lambda *a: None)
    monkeypatch.setattr("server.commands.serve.run", lambda *a: started.append(a))
    words = ("serve", "--host", "0.0.0.0", "--meta-url", "http://127.0.0.1:9")
    result = trivium(*words)
    assert isinstance(result.exception, CommandError)
    assert "can be reached from other machines" in str(result.exception)
    assert not started
    assert trivium(*words, "--no-keys").exit_code == 0
    assert len(started) == 2


# ---------------------------------------------------------------- other commands


async def test_commands_send_the_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key, secret = make_key()
    async with guarded(tmp_path, key) as site:
        with pytest.raises(CommandError, match="TRIVIUM_API_KEY"):
            await asyncio.to_thread(chat.chat, site.world.url, "Hi", chat.Options())
        monkeypatch.setenv("TRIVIUM_API_KEY", secret)
        await asyncio.to_thread(chat.chat, site.world.url, "Hi", chat.Options())
    assert capsys.readouterr().out == "Hello\n"


def test_doctor_hides_the_databases_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIVIUM_DATABASE_URL", "postgresql://trivium:hunter2@db/trivium")
    doctor.doctor(as_json=True)
    printed = capsys.readouterr().out
    assert "@db/trivium" in printed
    assert "hunter2" not in printed


def test_a_deployment_brings_its_own_secret_at_every_start(state: Path, tmp_path: Path) -> None:
    secret, file = PREFIX + 64 * "a", tmp_path / "admin_key"
    file.write_text(secret + "\n")
    bring = ("create", "admin", "--scope", "admin", "--secret-file", str(file))
    first, second = keys(*bring), keys(*bring)
    assert "is stored" in first.stderr
    assert "already" in second.stderr
    assert secret not in first.output + second.output
    assert found(secret) == "admin"
    assert json.loads(keys("list", "--json").stdout)[0]["scopes"] == ["admin"]
    file.write_text(PREFIX + 64 * "b")
    assert "keeps it" in keys(*bring).stderr  # it was rotated, maybe for a reason
    assert found(secret) == "admin"
    keys("revoke", "admin")
    assert "is stored" in keys(*bring).stderr
    assert (found(secret), found(PREFIX + 64 * "b")) == (None, "admin")


@pytest.mark.parametrize("secret", ["", "hunter2", PREFIX + "short", PREFIX + 64 * "ä"])
def test_a_secret_that_could_be_guessed_is_refused(
    state: Path, tmp_path: Path, secret: str
) -> None:
    file = tmp_path / "admin_key"
    file.write_text(secret)
    with pytest.raises(CommandError, match="openssl rand"):
        trivium_raises("create", "admin", "--secret-file", str(file))
    assert keys("list").stdout.startswith("there are no keys")


def trivium_raises(*words: str) -> None:
    error = trivium("keys", *words).exception
    assert error is not None
    raise error
