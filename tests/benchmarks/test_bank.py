"""The bank's benchmark without an engine: models, load, figures, tables, pictures, options."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from safetensors.torch import load_file

from experts.vllm_plugin.bank.adapters import make_base, why_unlike
from tests.benchmarks import bank, bank_changes, bank_speed, bank_tables
from tests.benchmarks.bank_models import TABLE, write_experts
from tests.benchmarks.bank_servers import Memory
from tests.benchmarks.bank_settings import DEFAULTS, Bench
from tests.benchmarks.load import (
    PROMPT_TOKENS,
    Load,
    LoadError,
    Stream,
    Target,
    percentile,
    spread_over,
    tokens_s,
)

GIB = 1 << 30


@pytest.mark.parametrize("shared", [True, False])
def test_experts_fit_one_bank_and_differ(tmp_path: Path, shared: bool) -> None:
    first, second = write_experts("small", tmp_path / "experts", 2, shared)
    make_base(first, tmp_path / "base")
    assert why_unlike(second, tmp_path / "base") is None
    same = {
        file.name: file.read_bytes() == (second / file.name).read_bytes()
        for file in first.glob("*.safetensors")
    }
    assert same.pop(TABLE) == shared
    assert "model.embed_tokens.weight" in load_file(first / TABLE)
    assert any(same.values()) == shared  # the small model is untied: the head is a file more


def test_the_tokenizer_has_a_text_for_every_id(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (folder,) = write_experts("small", tmp_path / "experts", 1, True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode([5, 999]) == "w5 w999"
    assert tokenizer("w5 w999")["input_ids"] == [5, 999]


@asynccontextmanager
async def fake_server(asked: list[dict[str, Any]]) -> AsyncIterator[str]:
    """Answers completions as vLLM streams them, two tokens in the first chunk."""

    async def completions(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked.append(body)
        if body["model"] == "missing":
            return web.json_response({"error": "no such model"}, status=404)
        response = web.StreamResponse()
        await response.prepare(request)
        tokens = body["max_tokens"] - (body["model"] == "short")
        for count in range(min(2, tokens), tokens + 1):
            event = {"choices": [{"text": "w"}], "usage": {"completion_tokens": count}}
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            await asyncio.sleep(0.001)
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/completions", completions)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def test_streams_are_timed_token_by_token() -> None:
    asked: list[dict[str, Any]] = []
    async with fake_server(asked) as url, aiohttp.ClientSession() as session:
        load = Load(session, vocabulary=1000)
        streams = await load.round([Target(url, "a"), Target(url, "b")], 6)
        assert [stream.counts for stream in streams] == [(2, 3, 4, 5, 6)] * 2
        assert all(stream.began < stream.times[0] <= stream.times[-1] for stream in streams)
        assert {body["model"] for body in asked} == {"a", "b"}
        assert len({tuple(body["prompt"]) for body in asked}) == 2
        assert all(len(body["prompt"]) == PROMPT_TOKENS for body in asked)
        speed = await load.speed([Target(url, "a")], 5, 3)
        assert len(speed.rounds) == 3
        assert min(speed.rounds) <= speed.tokens_s <= max(speed.rounds)


async def test_a_stream_that_is_refused_or_too_short_is_an_error() -> None:
    async with fake_server([]) as url, aiohttp.ClientSession() as session:
        load = Load(session, vocabulary=1000)
        with pytest.raises(LoadError, match="404"):
            await load.stream(Target(url, "missing"), 6)
        with pytest.raises(LoadError, match="instead of 6"):
            await load.stream(Target(url, "short"), 6)
        stopped = await load.stream(Target(url, "a"), 500, stop=lambda: True)
        assert stopped.tokens == 2


async def test_every_request_of_the_random_load_is_answered(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    async with fake_server(asked) as url, aiohttp.ClientSession() as session:
        bench = Bench(DEFAULTS["small"], tmp_path, session, Load(session, 1000))
        targets = [Target(url, f"e{number}") for number in range(9)]
        streams = await bank_changes.answer_all(bench, targets)
    assert sorted(stream.target.model for stream in streams) == [t.model for t in targets]


class FakeBank:
    """A bank, or servers for one expert each, at the fake server."""

    def __init__(self, url: str, experts: Sequence[Path]) -> None:
        self.targets = [Target(url, expert.name) for expert in experts]
        self.start_seconds = 1.0
        self._statuses = iter([(3, 1.0), (7, 1.5)])

    def memory(self) -> Memory:
        return Memory(2, 100, 200)

    async def add(self, name: str, checkpoint: Path) -> Target:
        self.targets.append(Target(self.targets[0].url, name))
        return self.targets[-1]

    async def status(self) -> dict[str, Any]:
        swaps, seconds = next(self._statuses)
        return {"swaps": swaps, "swap_seconds": seconds}


async def test_every_part_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    opened: list[tuple[int, ...]] = []
    settings = replace(DEFAULTS["small"], tokens=8, rounds=2)
    monkeypatch.setattr(bank_changes, "SETTLE_SECONDS", 0.02)
    async with fake_server(asked) as url, aiohttp.ClientSession() as session:

        @asynccontextmanager
        async def opening(_: Bench, experts: Sequence[Path], *rest: Any) -> AsyncIterator[FakeBank]:
            opened.append((len(experts), *rest[:-1]))
            yield FakeBank(url, experts)

        for module in (bank_speed, bank_changes):
            monkeypatch.setattr(module, "open_bank", opening)
        monkeypatch.setattr(bank_speed, "open_singles", opening)
        bench = Bench(settings, tmp_path, session, Load(session, 1000))
        result = {part: await measure(bench) for part, measure in bank.PARTS.items()}
    assert opened == [(2,), (2, 2), (2, 2), (4, 4), (4, 4), (6, 2), (6, 6), (2, 4), (2, 4)]
    assert [row["side"] for row in result["compare"]] == ["processes", "bank", "bank"]
    assert [row["experts"] for row in result["curve"]] == [1, 2, 4] * 2
    assert [row["swap_seconds"] for row in result["swaps"]] == [0.125, 0.125]
    assert all(len(row["added"]) == 2 for row in result["adding"])
    assert {body["model"] for body in asked} == {f"e{number}" for number in range(6)}
    json.dumps(result)
    bank_tables.tables(result)


def stream(*times: float, began: float = 0.0) -> Stream:
    return Stream(Target("", ""), began, times, tuple(range(1, len(times) + 1)))


def test_figures_of_streams() -> None:
    first, second = stream(1, 2, 3, 7), stream(2, 2.5, 5, 8, began=0.5)
    assert first.first == 1
    assert first.step == 2
    assert tokens_s([first, second]) == 8 / 8
    # from 2, when both run, to 7, when the first ends
    assert sorted(bank_changes.pauses([first, second])) == [0.5, 1, 2.5, 4]
    assert percentile([3, 1, 2, 4], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([5], 0.99) == 5
    a, b = Target("", "a"), Target("", "b")
    assert spread_over([a, b], 4) == [a, b, a, b]


def side(name: str, kind: str, speed: float, gib: float) -> dict[str, Any]:
    rounds = [0.9 * speed, speed, 1.1 * speed]
    speeds = [{"streams": n, "tokens_s": speed, "rounds": rounds, "spread": 0.1} for n in (1, 16)]
    memory = {"processes": 2, "pss": int(gib * GIB), "rss": int(1.2 * gib * GIB)}
    return {"side": name, "set": kind, "start_seconds": 30.0, "speed": speeds, "memory": memory}


def figures() -> dict[str, Any]:
    memory = [{"processes": 2, "pss": 3 * GIB, "rss": 4 * GIB}] * 5
    swapped = {"tokens_s": 90.0, "loads": [90.0] * 4, "lone_first_seconds": 0.05, "memory": memory}
    pauses = {"longest": 0.25, "longest_known": 0.2}
    added = [{"accepted_seconds": 0.3, "answer_seconds": 0.4, **pauses}] * 2
    quiet = {"median": 0.1, "p99": 0.12, "longest": 0.15}
    return {
        "machine": {"cpu": "some", "cores": 2, "isa": ["avx2"]},
        "kernel": "torch",
        "vllm": "vllm 0",
        "model": {"name": "small"},
        "settings": {"streams": 16, "kv_mib": 256},
        "compare": [
            side("processes", "own", 80, 20),
            side("bank", "shared", 200, 3),
            side("bank", "own", 168, 4),
        ],
        "curve": [
            {"set": kind, "experts": n, "step_seconds": 0.1, "rounds": [0.09, 0.1, 0.11]}
            for kind in ("shared", "own")
            for n in (1, 2)
        ],
        "swaps": [
            {"places": 4, "swaps": 77, "swap_seconds": 0.0021, **swapped},
            {"places": 32, "swaps": 0, "swap_seconds": None, **swapped},
        ],
        "adding": [
            {"set": kind, "undisturbed": quiet, "added": added} for kind in ("shared", "own")
        ],
    }


def test_tables_and_picture(capsys: pytest.CaptureFixture[str]) -> None:
    result = figures()
    bank_tables.tables(result)
    printed = capsys.readouterr().out
    for shown in ("2.50×", "2.10×", "0.15×", "0.20×", "2.1", "250 250", "±10%"):
        assert shown in printed
    pictures = pytest.importorskip("tests.benchmarks.bank_pictures")
    pictures.bank(result).savefig(BytesIO())
    for part in bank.PARTS:  # each can be measured alone
        alone = {k: v for k, v in result.items() if k == part or k not in bank.PARTS}
        bank_tables.tables(alone)
        pictures.bank(alone).savefig(BytesIO())


def test_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(bank, "run", lambda *given: seen.append(given))
    bank.main(["--size", "small", "--only", "curve", "--kv-mib", "3"])
    bank.main(["--json", str(tmp_path / "out.json")])
    (settings, parts, out), (default, all_parts, written) = seen
    assert (settings.kv_mib, settings.streams) == (3, DEFAULTS["small"].streams)
    assert (parts, out) == (["curve"], None)
    assert (default, written) == (DEFAULTS["135m"], tmp_path / "out.json")
    assert all_parts == list(bank.PARTS)
    with pytest.raises(SystemExit):
        bank.main(["--experts", "0"])


def test_settings() -> None:
    assert DEFAULTS["135m"].distinct == [1, 2, 4, 8, 16]
    assert DEFAULTS["135m"].loads == [1, 4, 16]
    assert DEFAULTS["small"].loads == [1, 4]
