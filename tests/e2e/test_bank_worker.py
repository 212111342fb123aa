"""A bank as the product runs it: a vLLM server whose experts come and go under load."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from safetensors.torch import load_file, save_file

from experts.manifest import ManagedWorker as Spec
from experts.verification import own_process
from experts.verification_sides import Ids
from server.relay.snapshot import Endpoint
from server.settings import Settings
from server.workers.banks import BankMember, Banks
from server.workers.engines import LocalEngines
from server.workers.worker import ManagedWorker, WorkerFailed
from tests.e2e.test_bank import ENGINE, TOKENS, make_experts, questions, texts_alone

pytestmark = pytest.mark.e2e

COUNT = 5
ARGS = ("--skip-tokenizer-init", "--max-model-len", "256", "--block-size", "32")
ARGS += ("--max-num-batched-tokens", "64", "--generation-config", "vllm", "--dtype", "float32")
assert ENGINE["max_num_batched_tokens"] == 64


class Site:
    """One bank, and what its experts write alone."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder, self.session = folder, session
        settings = Settings(
            state_dir=folder / "state", cache_dir=folder / "cache", bank_places=2, bank_args=ARGS
        )
        self.engines = LocalEngines(settings, session)
        self.processes: list[ManagedWorker] = []
        self.banks = Banks(folder / "banks", self._start)
        self.asked = questions(3 * COUNT)
        self.expected: list[Ids] = []
        self.members: dict[int, BankMember] = {}
        self.wrong: list[str] = []
        self.answered = 0

    def _start(self, name: str, base: Path, on_change: Any) -> ManagedWorker:
        self.processes.append(self.engines.bank(name, base, on_change))
        return self.processes[-1]

    async def add(self, number: int) -> Endpoint:
        spec = Spec(checkpoint=self.folder / f"e{number}")
        member = BankMember(f"e{number}", spec, self.banks, self.session, lambda worker: None)
        self.members[number] = member
        member.start()
        return (await member.ready())[0]

    async def remove(self, number: int) -> None:
        await self.members.pop(number).stop()

    async def ask(self, place: int) -> None:
        """Ask question `place` of its expert; note it if the text is not what it writes alone."""
        expert, prompt = self.asked[place]
        endpoint = self.members[expert].endpoint
        assert endpoint is not None
        body = {
            "model": endpoint.model,
            "prompt": list(prompt),
            "max_tokens": TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "detokenize": False,
            "return_token_ids": True,
        }
        async with self.session.post(f"{endpoint.base_url}/completions", json=body) as response:
            answer = await response.json()
        written = tuple(answer["choices"][0]["token_ids"]) if response.status == 200 else answer
        self.answered += 1
        if written != self.expected[place]:
            self.wrong.append(f"question {place} to e{expert}: {written}")

    async def keep_asking(self, *experts: int) -> None:
        """Questions to these experts, over and over, four at a time."""
        places = [n for n, (expert, _) in enumerate(self.asked) if expert in experts]
        turns = itertools.cycle(places)

        async def stream() -> None:
            while True:
                await self.ask(next(turns))

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(stream())

    async def bank(self) -> dict[str, Any]:
        endpoint = self.processes[-1].endpoint
        assert endpoint is not None
        url = f"{endpoint.base_url.removesuffix('/v1')}/trivium/bank"
        async with self.session.get(url) as response:
            view: dict[str, Any] = await response.json()
            return view

    async def metrics(self) -> str:
        endpoint = self.processes[-1].endpoint
        assert endpoint is not None
        url = f"{endpoint.base_url.removesuffix('/v1')}/metrics"
        async with self.session.get(url) as response:
            return await response.text()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    make_experts(tmp_path, "llama", COUNT)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        site = Site(tmp_path, session)
        with own_process() as process:
            alone = process.submit(texts_alone, tmp_path, site.asked)
            site.expected = await asyncio.wrap_future(alone)
        try:
            yield site
        finally:
            site.banks.closing = True
            for member in site.members.values():
                await member.stop()


async def test_experts_come_and_go_while_others_write(site: Site) -> None:
    await asyncio.gather(site.add(0), site.add(1))
    assert len(site.processes) == 1
    load = asyncio.create_task(site.keep_asking(0, 1))
    for number in (2, 3):  # more experts than places
        await site.add(number)
        await asyncio.gather(*(site.ask(n) for n, (e, _) in enumerate(site.asked) if e == number))
    await site.remove(2)
    _damage(site.folder / "e4")
    with pytest.raises(WorkerFailed, match=r"e4: .*layers\.1\.mlp\.down_proj\.weight"):
        await site.add(4)
    await site.add(2)
    await asyncio.gather(*(site.ask(n) for n, (e, _) in enumerate(site.asked) if e in (2, 3)))
    assert not load.done(), load
    load.cancel()
    assert site.wrong == []
    assert site.answered > 20
    await _look_at(site)


async def _look_at(site: Site) -> None:
    """The bank's own view, and its metrics."""
    view = await site.bank()
    assert {expert["name"] for expert in view["experts"]} == {"e0", "e1", "e2", "e3"}
    assert sum(expert["resident"] for expert in view["experts"]) <= view["places"] == 2
    assert all(expert["tokens"] >= 3 * TOKENS for expert in view["experts"])
    assert view["experts"][0]["checkpoint"] == str((site.folder / "e0").resolve())
    metrics = await site.metrics()
    assert "trivium_bank_experts_registered 4.0" in metrics
    assert f"trivium_bank_swaps_total {view['swaps']}" in metrics
    assert 'trivium_bank_tokens_total{expert="e3"}' in metrics
    assert "trivium_bank_turns_taken_total" in metrics


async def test_a_killed_bank_comes_back_with_its_experts(site: Site) -> None:
    await asyncio.gather(site.add(0), site.add(1))
    (process,) = site.processes
    assert process._process is not None
    for child in psutil.Process(process._process.pid).children(recursive=True):
        child.kill()
    while site.members[0].endpoint is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await asyncio.gather(site.members[0].ready(), site.members[1].ready())
    for place in (0, 1):
        await site.ask(place)
    assert site.wrong == []


def _damage(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][:] = 0xFF
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
