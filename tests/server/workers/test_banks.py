"""Experts find a bank, are added to it, come back with it, and leave it: against a fake engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web

from experts.manifest import ManagedWorker as Spec
from server.relay.snapshot import Endpoint
from server.workers.banks import BankMember, Banks
from server.workers.worker import OnChange, Watched, WorkerFailed, WorkerStatus
from tests.server.workers.test_registration import until


class FakeEngine(Watched):
    """A bank's process: comes up when told to, over real HTTP refuses and takes experts."""

    def __init__(self, name: str, site: Site, on_change: OnChange) -> None:
        super().__init__(f"bank:{name}", on_change)
        self.site = site
        self.experts: dict[str, str] = {}

    def start(self) -> None:
        if self.site.starts_by_itself:
            self.come_up()

    def come_up(self) -> None:
        self.experts.clear()
        self.site.generation += 1
        model = f"{self.name} {self.site.generation}"  # as a new process has another port
        self._set(WorkerStatus("live"), Endpoint(self.site.url, model, 512))

    def crash(self) -> None:
        self._set(WorkerStatus("restarting", "its process ended with status -9"))

    def fail(self) -> None:
        self._set(WorkerStatus("failed", "could not start: no memory"))

    async def stop(self) -> None:
        self.site.stopped.append(self.name)
        self._set(WorkerStatus("stopped"))


class Site:
    """Banks whose engines are fakes, and everything that happened to them."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder, self.session = folder, session
        self.engines: dict[str, FakeEngine] = {}
        self.stopped: list[str] = []
        self.answers: list[tuple[int, str]] = []
        """Given to the next additions in place of the real answer."""
        self.removed: list[str] = []
        self.starts_by_itself = True
        self.generation = 0
        self.seconds = 0.0
        """That an addition takes."""
        self.busy = asyncio.Lock()
        self.url = ""
        self.banks = Banks(folder / "banks", self._make)
        self.members: list[BankMember] = []

    def _make(self, name: str, base: Path, on_change: OnChange) -> Any:
        self.engines[name] = FakeEngine(name, self, on_change)
        return self.engines[name]

    def member(self, name: str, checkpoint: Path, bank: str | None = None) -> BankMember:
        spec = Spec(checkpoint=checkpoint, bank=bank)
        member = BankMember(name, spec, self.banks, self.session, lambda worker: None)
        self.members.append(member)
        member.start()
        return member

    def checkpoint(self, name: str, **changes: Any) -> Path:
        """A folder with all of a checkpoint that finding a bank looks at."""
        folder = self.folder / name
        folder.mkdir()
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 64,
            "quantization_config": {"quant_method": "bitnet"},
        }
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    async def add(self, request: web.Request) -> web.Response:
        async with self.busy:
            return await self._add(request)

    async def _add(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.seconds)
        if self.answers:
            status, message = self.answers.pop(0)
            return web.json_response({"error": {"message": message}}, status=status)
        body = await request.json()
        self._live().experts[body["name"]] = body["checkpoint"]
        return web.json_response({}, status=201)

    async def remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        async with self.busy:
            pass
        self.removed.append(name)
        self._live().experts.pop(name)
        return web.Response(status=204)

    def _live(self) -> FakeEngine:
        (engine,) = [engine for engine in self.engines.values() if engine.endpoint is not None]
        return engine


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with aiohttp.ClientSession() as session:
        site = Site(tmp_path, session)
        app = web.Application()
        app.router.add_post("/trivium/bank", site.add)
        app.router.add_delete("/trivium/bank/{name}", site.remove)
        runner = web.AppRunner(app)
        await runner.setup()
        listener = web.TCPSite(runner, "127.0.0.1", 0)
        await listener.start()
        port = runner.addresses[0][1]
        site.url = f"http://127.0.0.1:{port}/v1"
        yield site
        site.banks.closing = True
        for member in site.members:
            await member.stop()
        await runner.cleanup()


async def test_experts_of_one_architecture_share_a_bank(site: Site) -> None:
    first = site.member("sums", site.checkpoint("one"))
    other = site.member("stars", site.checkpoint("two"))
    (endpoint,) = await first.ready()
    assert (endpoint.model, endpoint.max_model_len) == ("sums", 512)
    assert (await other.ready())[0].model == "stars"
    assert (first.bank, other.bank, list(site.engines)) == ("llama", "llama", ["llama"])
    assert sorted(site.engines["llama"].experts) == ["stars", "sums"]
    base = json.loads((site.folder / "banks" / "llama" / "config.json").read_text())
    assert base["architectures"] == ["BankLlamaForCausalLM"]


async def test_an_expert_of_another_shape_gets_another_bank(site: Site) -> None:
    site.starts_by_itself = False
    site.member("sums", site.checkpoint("one"))
    wide = site.member("wide", site.checkpoint("two", hidden_size=128))
    await until(lambda: list(site.engines) == ["llama", "llama-2"])
    assert wide.bank == "llama-2"


async def test_a_checkpoint_does_not_choose_where_its_bank_is_written(site: Site) -> None:
    mine = site.folder / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("of today")
    site.starts_by_itself = False
    first = site.member("sums", site.checkpoint("one", model_type=str(mine)))
    other = site.member("stars", site.checkpoint("two", model_type="../../mine"))
    await until(lambda: len(site.engines) == 2)
    assert (first.bank, other.bank) == ("llama", "llama-2")
    assert [file.name for file in mine.iterdir()] == ["diary.txt"]


async def test_a_named_bank_takes_only_what_fits(site: Site) -> None:
    site.starts_by_itself = False
    first = site.member("sums", site.checkpoint("one"), bank="mine")
    await until(lambda: first.bank == "mine")
    wide = site.member("wide", site.checkpoint("two", hidden_size=128), bank="mine")
    with pytest.raises(WorkerFailed, match=r"bank 'mine'.*hidden_size is 128, the bank's 64"):
        await wide.ready()
    assert list(site.engines) == ["mine"]


async def test_a_refused_expert_says_why_and_the_others_stay(site: Site) -> None:
    first = site.member("sums", site.checkpoint("one"))
    await first.ready()
    site.answers.append((422, "model.layers.1 is damaged"))
    bad = site.member("bad", site.checkpoint("two"))
    with pytest.raises(WorkerFailed, match=r"model\.layers\.1 is damaged"):
        await bad.ready()
    await bad.stop()
    assert first.status.state == "live"
    assert list(site.engines["llama"].experts) == ["sums"]
    assert site.stopped == []


async def test_a_bank_that_hiccups_is_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.workers.banks.AGAIN_SECONDS", 0.01)
    site.answers = [(500, "internal"), (503, "busy")]
    assert (await site.member("sums", site.checkpoint("one")).ready())[0].model == "sums"


async def test_an_older_expert_of_the_name_makes_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.workers.banks.AGAIN_SECONDS", 0.01)
    first = site.member("sums", site.checkpoint("one"))
    await first.ready()
    site.engines["llama"].experts["stars"] = "/older"
    site.answers.append((409, "the name is in use"))
    await site.member("stars", site.checkpoint("two")).ready()
    assert site.removed == ["stars"]
    assert site.engines["llama"].experts["stars"].endswith("two")


async def test_when_a_bank_comes_back_its_experts_do(site: Site) -> None:
    members = [site.member(name, site.checkpoint(name)) for name in ("sums", "stars")]
    for member in members:
        await member.ready()
    engine = site.engines["llama"]
    engine.crash()
    await until(lambda: all(m.status.state == "restarting" for m in members))
    assert "ended with status -9" in members[0].status.reason
    assert members[0].endpoint is None
    engine.come_up()
    for member in members:
        await member.ready()
    assert sorted(engine.experts) == ["stars", "sums"]


async def test_a_bank_that_cannot_start_fails_its_experts(site: Site) -> None:
    site.starts_by_itself = False
    member = site.member("sums", site.checkpoint("one"))
    await until(lambda: "llama" in site.engines)
    site.engines["llama"].fail()
    with pytest.raises(WorkerFailed, match="no memory"):
        await member.ready()


async def test_a_bank_that_was_given_up_is_nobodys(site: Site) -> None:
    first = site.member("sums", site.checkpoint("one"))
    await first.ready()
    dead = site.engines["llama"]
    dead.crash()
    dead.fail()
    await until(lambda: first.status.state == "failed")
    second = site.member("stars", site.checkpoint("two"))
    await second.ready()
    assert site.engines["llama"] is not dead
    await first.stop()
    again = site.member("sums", site.folder / "one")
    await again.ready()
    assert sorted(site.engines["llama"].experts) == ["stars", "sums"]


async def test_an_expert_that_leaves_is_removed_and_the_last_one_ends_the_bank(site: Site) -> None:
    first = site.member("sums", site.checkpoint("one"))
    other = site.member("stars", site.checkpoint("two"))
    await first.ready()
    await other.ready()
    await first.stop()
    assert (site.removed, site.stopped) == (["sums"], [])
    await other.stop()
    assert (site.removed, site.stopped) == (["sums"], ["bank:llama"])
    again = site.member("sums", site.folder / "one")
    assert (await again.ready())[0].model == "sums"


async def test_an_expert_that_leaves_while_it_is_read_is_removed(site: Site) -> None:
    first = site.member("stars", site.checkpoint("one"))
    await first.ready()
    site.seconds = 0.3
    second = site.member("sums", site.checkpoint("two"))
    await asyncio.sleep(0.15)  # it is being read
    await second.stop()
    assert sorted(site.engines["llama"].experts) == ["stars"]


async def test_a_bank_that_ends_while_an_expert_looks_for_one_is_not_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = site.member("stars", site.checkpoint("one"))
    await first.ready()

    def slowly(*args: Any) -> None:
        time.sleep(1.0)

    monkeypatch.setattr("server.workers.banks.why_unlike", slowly)
    second = site.member("sums", site.checkpoint("two"))
    await asyncio.sleep(0.1)
    await first.stop()
    await second.ready()
    assert site.stopped == ["bank:llama"]


async def test_an_expert_that_never_found_a_bank_leaves_quietly(site: Site) -> None:
    member = site.member("lost", site.folder / "nowhere", bank="mine")
    with suppress(WorkerFailed):
        await member.ready()
    assert "config.json" in member.status.reason
    await member.stop()
    assert site.stopped == []


@pytest.mark.parametrize(
    ("bank", "args", "changes", "takes"),
    [
        (None, (), {}, True),
        (False, (), {}, False),
        ("mine", (), {}, True),
        (None, ("--max-model-len", "64"), {}, False),
        (None, (), {"architectures": ["GPT2LMHeadModel"]}, False),
        ("mine", (), {"architectures": ["GPT2LMHeadModel"]}, True),
        (None, (), {"architectures": [["LlamaForCausalLM"]]}, False),
        (None, (), {"quantization_config": {"quant_method": "fp8"}}, False),
        (None, (), {"quantization_config": "bitnet"}, False),
        (
            None,
            (),
            {"quantization_config": {"quant_method": "bitnet", "use_rms_norm": True}},
            False,
        ),
    ],
)
async def test_who_goes_into_a_bank(
    site: Site,
    bank: str | Literal[False] | None,
    args: tuple[str, ...],
    changes: dict[str, Any],
    takes: bool,
) -> None:
    spec = Spec(checkpoint=site.checkpoint("one", **changes), bank=bank, args=args)
    assert Banks.takes(spec) is takes
