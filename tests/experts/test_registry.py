"""The registry: what is stored is found again; names and slots stay unique."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from experts.manifest import Manifest, parse_manifest
from experts.registry import (
    NO_META,
    TABLES,
    Choices,
    NameInUse,
    NoFreeSlot,
    Registry,
    RegistryError,
    UnknownExpert,
)


def manifest(name: str = "poems") -> Manifest:
    worker = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    examples = [f"poem {number}" for number in range(5)]
    raw = {"name": name, "description": "d", "worker": worker, "examples": examples}
    return parse_manifest(raw, base=Path("/"))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    registry = Registry(url)
    yield registry
    registry.close()


def test_an_expert_is_found_again_after_a_restart(registry: Registry, url: str) -> None:
    added = registry.add(manifest(), 3, b"row", "print", 0.9)
    registry.close()
    assert Registry(url).experts() == [added]
    assert Registry(url).get("poems").manifest == manifest()


@pytest.mark.parametrize(("name", "slot"), [("poems", 1), ("other", 0)])
def test_a_name_or_slot_in_use_is_refused(registry: Registry, name: str, slot: int) -> None:
    registry.add(manifest(), 0, b"", "print", None)
    with pytest.raises(NameInUse, match="registered already"):
        registry.add(manifest(name), slot, b"", "print", None)
    assert [expert.name for expert in registry.experts()] == ["poems"]


def test_the_lowest_free_slot_is_given(registry: Registry) -> None:
    registry.add(manifest("a"), 0, b"", "print", None)
    registry.add(manifest("b"), 2, b"", "print", None)
    assert registry.free_slot(4) == 1
    assert registry.free_slot(4, excluded={1}) == 3
    with pytest.raises(NoFreeSlot, match="all 2"):
        registry.free_slot(2, excluded={1})


def test_removing_frees_name_and_slot(registry: Registry) -> None:
    registry.add(manifest(), 0, b"", "print", None)
    registry.remove("poems")
    assert registry.free_slot(1) == 0
    for change in (registry.remove, registry.get):
        with pytest.raises(UnknownExpert, match="'poems'"):
            change("poems")


def test_a_row_can_be_replaced(registry: Registry) -> None:
    registry.add(manifest(), 0, b"old", "print", 0.5)
    registry.update_row("poems", b"new", "other", 0.7)
    expert = registry.get("poems")
    assert (expert.row, expert.meta, expert.accuracy) == (b"new", "other", 0.7)
    with pytest.raises(UnknownExpert):
        registry.update_row("nobody", b"", "", None)


def test_rows_fitted_together_replace_all_that_the_old_background_had(
    registry: Registry, url: str
) -> None:
    for slot, name in enumerate(("a", "b", "disabled", "elsewhere")):
        registry.add(manifest(name), slot, b"old", "print", None)
    registry.update_row("elsewhere", b"old", "other", None)
    assert registry.backgrounds() == {}
    for background in (b"first", b"second"):
        rows = {"a": (b"new a", 0.9, None), "b": (b"new b", 0.8, None)}
        registry.update_rows("print", rows, background)
    registry.close()
    found = {expert.name: (expert.row, expert.meta) for expert in Registry(url).experts()}
    assert found == {
        "a": (b"new a", "print"),
        "b": (b"new b", "print"),
        "disabled": (b"old", NO_META),
        "elsewhere": (b"old", "other"),
    }
    assert Registry(url).backgrounds() == {"print": b"second"}


def test_rows_of_an_unknown_expert_change_nothing(registry: Registry) -> None:
    registry.add(manifest(), 0, b"old", "print", None)
    rows = {"poems": (b"new", 1.0, None), "nobody": (b"", 1.0, None)}
    with pytest.raises(UnknownExpert):
        registry.update_rows("print", rows, b"kinds")
    assert (registry.get("poems").row, registry.get("poems").meta) == (b"old", "print")
    assert registry.backgrounds() == {}


def test_where_held_out_examples_went_is_kept(registry: Registry, url: str) -> None:
    registry.add(manifest("a"), 0, b"", "print", None)
    registry.add(manifest("b"), 1, b"old", "print", 0.75, {"b": 3, "meta": 1})
    registry.close()
    registry = Registry(url)
    assert [expert.routes for expert in registry.experts()] == [None, {"b": 3, "meta": 1}]
    registry.update_rows("print", {"b": (b"new", 1.0, {"b": 4})}, b"")
    expert = registry.get("b")
    assert (expert.row, expert.accuracy, expert.routes) == (b"new", 1.0, {"b": 4})


def test_starters_are_remembered_until_forgotten(registry: Registry) -> None:
    assert not registry.starter_seen("arithmetic")
    registry.mark_starter("arithmetic")
    registry.mark_starter("arithmetic")
    assert registry.starter_seen("arithmetic")
    registry.mark_starter("arithmetic", seen=False)
    assert not registry.starter_seen("arithmetic")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_text("this is not a database, only text" * 40)
    with pytest.raises(RegistryError, match="could not open the registry"):
        Registry(f"sqlite:///{tmp_path / 'registry.db'}")


def test_what_a_person_chooses_is_kept(registry: Registry, url: str) -> None:
    registry.add(manifest(), 0, b"row", "print", None)
    assert registry.get("poems").choices == Choices()
    chosen = registry.choose("poems", Choices(enabled=False, threshold=0.8))
    assert chosen.choices == Choices(enabled=False, threshold=0.8)
    registry.update_row("poems", b"new", "print", None)
    registry.close()
    assert Registry(url).get("poems").choices == chosen.choices
    with pytest.raises(UnknownExpert):
        Registry(url).choose("other", Choices())


def test_an_older_database_is_brought_up_to_date(tmp_path: Path, url: str) -> None:
    with sqlite3.connect(tmp_path / "registry.db") as old:
        old.execute(
            "CREATE TABLE experts (name VARCHAR(63) PRIMARY KEY, slot INTEGER UNIQUE NOT NULL,"
            " manifest JSON NOT NULL, row BLOB NOT NULL, meta VARCHAR(64) NOT NULL,"
            " accuracy FLOAT, created VARCHAR(40) NOT NULL)"
        )
        old.execute("CREATE TABLE starters (name VARCHAR(63) PRIMARY KEY)")
        text = manifest().model_dump_json()
        row = ("poems", 4, text, b"row", "print", 0.9, "2026-01-01T00:00:00+00:00")
        old.execute("INSERT INTO experts VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    for _ in range(2):
        registry = Registry(url)
        found = registry.get("poems")
        assert (found.slot, found.manifest, found.choices) == (4, manifest(), Choices())
        registry.close()


def test_tables_and_code_agree(registry: Registry, url: str) -> None:
    with create_engine(url).connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), TABLES)
    assert [d for d in differences if d[0] != "remove_table"] == []
