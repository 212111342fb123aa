"""Opening databases: what goes wrong is said in words, and without the password."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from experts.registry import Registry, RegistryUnavailable
from server.edge.keys import KeysError, KeyStore
from server.settings import Settings
from server.workers.worker import free_port
from tests.postgres import Server

PASSWORD = "hunter2"


def test_a_server_that_is_away_is_named(postgres: Server) -> None:
    nobody = f"postgresql://trivium:{PASSWORD}@127.0.0.1:{free_port()}/trivium"
    nothing = postgres.url("nothing", PASSWORD)
    for url, reason in ((nobody, "refused"), (nothing, "does not exist")):
        for kind, error in ((Registry, RegistryUnavailable), (KeyStore, KeysError)):
            with pytest.raises(error, match=f"could not open.*{reason}") as raised:
                kind(url)
            assert PASSWORD not in str(raised.value)
            assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"trivium:{PASSWORD}@db", "is no database URL"),
        (f"postgresql://u:{PASSWORD}@db:port/x", "is no database URL"),
        (f"mysql://u:{PASSWORD}@db/x", "of kind 'mysql'"),
    ],
)
def test_a_url_that_is_none_of_ours_is_refused_and_not_shown(url: str, words: str) -> None:
    with pytest.raises(RegistryUnavailable, match=words) as raised:
        Registry(url)
    assert PASSWORD not in str(raised.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RegistryUnavailable, match=r"pip install -e '\.\[postgres\]'"):
        Registry("postgresql://u@127.0.0.1/x")


def test_settings_do_not_show_the_url() -> None:
    settings: Any = Settings(database_url=f"postgresql://u:{PASSWORD}@db/x")
    assert PASSWORD not in repr(settings)
    assert PASSWORD in settings.database
