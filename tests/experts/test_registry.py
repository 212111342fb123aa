"""The registry: what is stored is found again; names and slots stay unique."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from experts.database import open_engine
from experts.manifest import Manifest, parse_manifest
from experts.registry import (
    NO_META,
    Choices,
    NameInUse,
    NoFreeSlot,
    Registry,
    RegistryChanged,
    RegistryError,
    UnknownExpert,
)
from experts.tables import TABLES
from server.edge.keys import KeyStore


def manifest(name: str = "poems") -> Manifest:
    worker = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    examples = [f"poem {number}" for number in range(5)]
    raw = {"name": name, "description": "d", "worker": worker, "examples": examples}
    return parse_manifest(raw, base=Path("/"))


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


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
    registry.update_row("poems", b"new", "other")
    expert = registry.get("poems")
    assert (expert.row, expert.meta, expert.accuracy) == (b"new", "other", None)
    with pytest.raises(UnknownExpert):
        registry.update_row("nobody", b"", "")


def test_rows_fitted_together_replace_all_that_the_old_background_had(
    registry: Registry, url: str
) -> None:
    for slot, name in enumerate(("a", "b", "disabled", "elsewhere")):
        registry.add(manifest(name), slot, b"old", "print", None)
    registry.update_row("elsewhere", b"old", "other")
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
    registry.update_row("poems", b"new", "print")
    registry.close()
    assert Registry(url).get("poems").choices == chosen.choices
    with pytest.raises(UnknownExpert):
        Registry(url).choose("other", Choices())


def test_an_older_database_is_brought_up_to_date(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
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
    with open_engine(url).connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), TABLES)
    assert [d for d in differences if d[0] != "remove_table"] == []


# ---------------------------------------------------------------- several servers


def test_every_change_makes_a_new_version(registry: Registry) -> None:
    versions = [registry.version()]
    for change in (
        lambda: registry.add(manifest(), 0, b"", "print", None),
        lambda: registry.update_row("poems", b"new", "print"),
        lambda: registry.update_rows("print", {"poems": (b"", 1.0, None)}, b""),
        lambda: registry.choose("poems", Choices(threshold=0.5)),
    ):
        change()
        versions.append(registry.version())
        assert registry.get("poems").version == versions[-1]
    registry.remove("poems")
    versions.append(registry.version())
    assert versions == list(range(versions[0], versions[0] + 6))


def test_a_change_that_fails_makes_none(registry: Registry) -> None:
    registry.add(manifest(), 0, b"", "print", None)
    version = registry.version()
    with pytest.raises(NameInUse):
        registry.add(manifest(), 1, b"", "print", None)
    with pytest.raises(UnknownExpert):
        registry.remove("nobody")
    assert registry.version() == version


def test_what_was_decided_from_an_older_registry_is_refused(registry: Registry, url: str) -> None:
    other, seen = Registry(url), registry.version()
    other.add(manifest("first"), 0, b"", "print", None, seen=seen)
    for change in (
        lambda: registry.add(manifest("second"), 1, b"", "print", None, seen=seen),
        lambda: registry.update_row("first", b"new", "print", seen=seen),
        lambda: registry.update_rows("print", {}, b"", seen=seen),
    ):
        with pytest.raises(RegistryChanged, match="by another server"):
            change()
    assert [(e.name, e.row) for e in registry.experts()] == [("first", b"")]
    registry.add(manifest("second"), 1, b"", "print", None, seen=seen + 1)
    other.close()


def test_an_expert_that_is_not_what_was_looked_at_is_left(registry: Registry) -> None:
    looked_at = registry.add(manifest(), 0, b"", "print", None).version
    present = registry.choose("poems", Choices(threshold=0.5), expected=looked_at).version
    for change in (
        lambda: registry.choose("poems", Choices(), expected=looked_at),
        lambda: registry.remove("poems", expected=looked_at),
    ):
        with pytest.raises(RegistryChanged, match=f"its version is {present}, not {looked_at}"):
            change()
    assert registry.get("poems").choices.threshold == 0.5
    registry.remove("poems", expected=present)


def test_a_state_is_of_one_moment(registry: Registry, url: str) -> None:
    """Somebody adds experts and changes the background with each; no mixture is ever seen."""
    writer = Registry(url)

    def write() -> None:
        for slot in range(20):
            writer.add(manifest(f"e{slot}"), slot, b"", "print", None)

    with ThreadPoolExecutor() as pool:
        done = pool.submit(write)
        while not done.done():
            state = registry.state()
            newest = max((e.version for e in state.experts), default=state.version)
            assert newest == state.version
            assert len(state.experts) == state.version - 1
        done.result()
    writer.close()


def test_two_hundred_changes_at_once_leave_a_consistent_registry(postgres_url: str) -> None:
    """From two servers, without any coordination but the database's own: each looks for a free
    slot and takes it, and somebody is often faster."""
    servers = Registry(postgres_url), Registry(postgres_url)

    def add_and_maybe_remove(number: int) -> None:
        registry, name = servers[number % 2], f"e{number}"
        for _ in range(1000):
            try:
                registry.add(manifest(name), registry.free_slot(200), name.encode(), "print", None)
                break
            except NameInUse:
                continue
        if number % 3:
            servers[(number + 1) % 2].remove(name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_and_maybe_remove, range(120)))
    states = [server.state() for server in servers]
    assert states[0] == states[1]
    experts = states[0].experts
    assert sorted(e.name for e in experts) == sorted(f"e{n}" for n in range(0, 120, 3))
    assert len({e.slot for e in experts}) == len(experts)
    assert all(e.row == e.name.encode() for e in experts)
    assert states[0].version == 1 + 120 + 80
    for server in servers:
        server.close()


def test_servers_that_start_at_once_make_the_tables_once(postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        registries = list(pool.map(Registry, [postgres_url] * 4))
        keys = list(pool.map(KeyStore, [postgres_url] * 4))
    assert [registry.version() for registry in registries] == [1] * 4
    assert [store.keys() for store in keys] == [[]] * 4
    for opened in (*registries, *keys):
        opened.close()
