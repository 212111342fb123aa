"""The relay benchmark: its checks see what is wrong, and its processes do their parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.workers.worker import free_port
from tests.benchmarks import relay, relay_tables
from tests.benchmarks.relay_load import fault
from tests.benchmarks.relay_servers import Cores, Side, load, orchestrator, stub
from tests.benchmarks.relay_stub import Script
from tests.benchmarks.relay_text import ANSWER, CHUNKS, TEXTS


def answer(texts: tuple[str, ...] = TEXTS) -> bytes:
    """The body of a stream, without HTTP's chunks."""
    lines = Script.of(texts, "meta", None, usage=True).whole.split(b"\r\n")
    return b"".join(line for line in lines if line.startswith(b"data: "))


def test_a_whole_stream_is_recognised() -> None:
    assert len(ANSWER) == pytest.approx(5 * CHUNKS, rel=0.3)
    assert fault(200, answer()) is None


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (502, b'{"error": {}}', "status 502"),
        (200, answer(TEXTS[:-1]), "another text"),
        (200, answer((TEXTS[0] + TEXTS[1], *TEXTS[2:])), "63 chunks"),
        (200, answer().replace(b'"finish_reason":"stop"', b'"finish_reason":null'), "finish"),
        (200, answer().replace(b"data: [DONE]", b""), "[DONE]"),
        (200, answer() + b"data: [DONE]\n\n", "[DONE]"),
    ],
)
def test_what_is_wrong_is_seen(status: int, body: bytes, says: str) -> None:
    assert says in (fault(status, body) or "")


def test_every_side_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are not looked at: they depend on the machine."""
    settings = relay.Settings(rounds=1, seconds=0.3, clients=2)
    cores = Cores.of_this_machine()
    with (
        stub(cores, free_port()) as worker,
        orchestrator(cores, worker, tmp_path) as (url, process),
    ):
        alone = Side("the worker alone", f"{worker}/v1", "alone")
        through = Side("Trivium", url, "", process)
        bench = relay.Bench(settings, cores, (alone, through))
        result = {part: relay.PARTS[part](bench) for part in ("speed", "first")}
        slow = load(cores, through, "steady handoff-middle", 4, 0.5, warm=0.0)
    assert slow["all"] >= 4
    sides = [side for mode in result["speed"] for side in mode["sides"]]
    for side in [*sides, *result["first"]["sides"]]:
        assert side["errors"] == 0, side["messages"]
    assert all(side["chunks_s"] > 0 for side in sides)
    relay_tables.tables(result)
    assert "chunks/s" in capsys.readouterr().out


def test_other_proxies_are_named() -> None:
    assert relay._name_and_url("a=http://h:1/v1/") == ("a", "http://h:1/v1")
    with pytest.raises(Exception, match="NAME=URL"):
        relay._name_and_url("http://h:1/v1")
