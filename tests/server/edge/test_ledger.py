"""Counting together: what one process writes down, the others read, under one lock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from server.edge import ledger as ledger_module
from server.edge.keys import Limits
from server.edge.ledger import OwnLedger, SharedLedger
from tests.server.guarded import limited, make_key

TURNS = 2000


@pytest.fixture
def ledger() -> Iterator[SharedLedger]:
    made = SharedLedger.make()
    yield made
    os.close(made.descriptor)


def test_requests_in_flight_add_up_and_go_with_their_process(ledger: SharedLedger) -> None:
    other = SharedLedger(ledger.descriptor, 1)
    ledger.move(1)
    other.move(2)
    assert (ledger.in_flight(), other.in_flight()) == (3, 3)
    other.move(-1)
    ledger.forget(1)
    assert (ledger.in_flight(), other.in_flight()) == (1, 1)


def test_a_keys_levels_are_the_same_everywhere(ledger: SharedLedger) -> None:
    key, _ = limited(requests=5)
    levels = ledger.levels(key)
    assert [levels[i] for i in range(4)] == [0.0] * 4
    levels[0], levels[1] = 4.0, 100.0
    again = SharedLedger(ledger.descriptor, 1).levels(key)
    assert [again[i] for i in range(4)] == [4.0, 100.0, 0.0, 0.0]


@pytest.mark.parametrize("shared", [False, True])
def test_changed_limits_and_other_keys_have_levels_of_their_own(shared: bool) -> None:
    ledger = SharedLedger.make() if shared else OwnLedger()
    ledger.levels(limited(requests=5)[0])[0] = 1.0
    assert ledger.levels(limited(requests=5)[0])[0] == 1.0
    assert ledger.levels(limited(requests=6)[0])[0] == 0.0
    assert ledger.levels(make_key("bob", limits=Limits(5))[0])[0] == 0.0


def test_where_there_is_no_room_the_key_unused_for_longest_is_forgotten(
    ledger: SharedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "ROWS", 2)
    monkeypatch.setattr(ledger_module, "NEIGHBOURS", 2)
    keys = [make_key(name, limits=Limits(5, 5))[0] for name in ("first", "second", "third")]
    for key, used in zip(keys, (200.0, 100.0, 300.0), strict=True):
        levels = ledger.levels(key)
        levels[0], levels[1] = 3.0, used
    assert ledger.levels(keys[0])[1] == 200.0
    assert ledger.levels(keys[2])[1] == 300.0
    assert ledger.levels(keys[1])[1] == 0.0


def test_no_count_is_lost_when_processes_count_at_once(ledger: SharedLedger) -> None:
    code = f"""
import sys
from server.edge.ledger import SharedLedger
ledger = SharedLedger(int(sys.argv[1]), 0)
for _ in range({TURNS}):
    with ledger.locked():
        ledger.move(1)
"""
    command = [sys.executable, "-c", code, str(ledger.descriptor)]
    both = [subprocess.Popen(command, pass_fds=[ledger.descriptor]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert ledger.in_flight() == 2 * TURNS
