"""Who still uses a snapshot: requests here, and those of other processes."""

from __future__ import annotations

from server.relay.snapshot import Endpoint, LiveExpert, Snapshot, SnapshotHolder

META = (Endpoint("http://127.0.0.1:1/v1", "meta"),)
CALC = LiveExpert("calc", 1001, META)


def test_a_version_is_held_as_long_as_a_request_runs_with_it() -> None:
    holder, told = SnapshotHolder(), list[frozenset[int]]()
    holder.subscribe(lambda: told.append(holder.versions()))
    holder.publish(META, (CALC,))
    with holder.lease(), holder.lease():
        holder.publish(META, ())
        assert holder.token_in_use(CALC.token_id)
    with holder.lease():
        pass
    assert not holder.token_in_use(CALC.token_id)
    assert told == [{1}, {1, 2}, {2}]


def test_a_snapshot_of_another_process_keeps_its_version() -> None:
    holder = SnapshotHolder()
    holder.follow(Snapshot(7, META, (CALC,)))
    assert (holder.current.version, holder.versions()) == (7, {7})


def test_what_others_use_is_in_use() -> None:
    holder = SnapshotHolder()
    holder.ask_also(lambda token: token == 5)
    assert holder.token_in_use(5)
    assert not holder.token_in_use(6)
