"""Hundreds of streams while workers are killed, stalled and broken: every text stays whole.

The application is the real one, over real HTTP. What a worker writes is a function of the question
and of what is written already, so that whoever goes on with a lost answer has to write the same
text, and a word that is lost or said twice is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from fastapi import FastAPI

from experts.manifest import Manifest, parse_manifest
from experts.registry import Registry
from router.head import ROW_FORMAT, HeadRow
from server.app import create_app
from server.relay.snapshot import SnapshotHolder
from server.seeing.happenings import BreakerChanged, Retried
from server.seeing.observe import Happening, LegStarted
from server.settings import Settings
from tests.fake_meta import FIRST_ID, HIDDEN
from tests.fakes import ExpertToken, Failure, FakeWorker, Reply, Token
from tests.server.conftest import serving, until

SEED = 20
STREAMS, AT_ONCE = 500, 20
SLOTS = 4
EXPERTS = {"sums": 2, "stars": 2, "poems": 1}
"""How many replicas each has."""
BREAKS: tuple[Failure, ...] = ("cut", "close", "error", "garbage", "abort", "stall")
REFUSALS = (500, 503, 429)
ASKS = 50
"""How often a client asks that is refused before the first byte, as when both meta workers are
dead."""


def words(question: str) -> list[str]:
    """The answer: each word tells its question and its place."""
    count = random.Random(question).randint(8, 30)
    return [f"{question}.{place} " for place in range(count)]


def writer(question: str) -> tuple[int, str | None]:
    """The place where the meta hands over, and to which expert, if it does."""
    place = random.Random(question + "?").randint(0, len(words(question)) - 1)
    expert = random.Random(question + "!").choice([*EXPERTS, None])
    return place, expert


def undisturbed(body: dict[str, Any], handing_over: bool) -> Reply:
    """What follows the text so far; nonsense if that is not the beginning of the answer."""
    question, written = body["messages"][0]["content"], ""
    if body.get("continue_final_message"):
        written = body["messages"][-1]["content"]
    tokens: list[Token] = []
    place, expert = writer(question)
    for number, word in enumerate(words(question)):
        if handing_over and number == place and expert is not None:
            tokens.append(ExpertToken(FIRST_ID + list(EXPERTS).index(expert)))
        tokens.append(word)
    while written and tokens:
        word = tokens.pop(0)
        if isinstance(word, str):
            if not written.startswith(word):
                return Reply(["NOT WHAT IS WRITTEN"])
            written = written.removeprefix(word)
    return Reply(tokens)


@dataclass
class Chaos:
    """Decides what goes wrong, from one seed."""

    random: random.Random
    done: Counter[str] = field(default_factory=Counter)

    def disturb(self, reply: Reply) -> Reply:
        """The same reply, or one that breaks somewhere."""
        luck = self.random.random()
        if luck < 0.05:
            self.done["refused"] += 1
            status = self.random.choice(REFUSALS)
            return Reply(status=status, error={"error": {"message": "no", "code": status}})
        if luck < 0.25:
            how = self.random.choice(BREAKS)
            self.done[how] += 1
            place = self.random.randint(0, len(reply.tokens))
            return replace(reply, failure=how, fail_after=place)
        return replace(reply, delay=0.001)

    async def kill(self, workers: list[FakeWorker], snapshots: SnapshotHolder) -> None:
        """Kill one worker after the other; each is started again.

        A meta worker is away until that has been noticed, as a real one is: it takes much longer
        to start than the pause between two probes.
        """
        while True:
            await asyncio.sleep(self.random.uniform(0.02, 0.1))
            worker = self.random.choice(workers)
            await worker.kill()
            self.done["killed"] += 1
            await asyncio.sleep(self.random.uniform(0.05, 0.3))
            if isinstance(worker, Meta):
                await until(partial(unused, worker, snapshots), 10)
            await worker.start()


def unused(meta: FakeWorker, snapshots: SnapshotHolder) -> bool:
    """Whether no request goes to a meta worker."""
    urls = [endpoint.base_url for endpoint in snapshots.current.meta]
    return meta.endpoint.base_url not in urls


class Meta(FakeWorker):
    """A meta worker with a head, which it forgets when it dies."""

    version = ""
    answered_without_head = 0

    def application(self) -> web.Application:
        app = super().application()
        app.router.add_get("/trivium/head", self._head)
        app.router.add_put("/trivium/head", self._head)
        return app

    async def _head(self, request: web.Request) -> web.Response:
        if request.method == "PUT":
            self.version = (await request.json())["version"]
        layout = {"first_id": FIRST_ID, "slots": SLOTS, "fingerprint": "fake"}
        return web.json_response({"version": self.version, "hidden_size": HIDDEN, **layout})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.answered_without_head += not self.version
        return await super().chat(request)

    async def kill(self) -> None:
        await super().kill()
        self.version = ""


@dataclass
class Site:
    """The orchestrator, its workers, and what was seen."""

    app: FastAPI
    url: str
    metas: list[Meta]
    experts: list[FakeWorker]
    chaos: Chaos
    happenings: list[Happening]

    @property
    def workers(self) -> list[FakeWorker]:
        return [*self.metas, *self.experts]


def manifest(name: str, replicas: list[FakeWorker]) -> Manifest:
    worker = {"urls": [w.endpoint.base_url for w in replicas], "model": name}
    examples = [f"{name} {number}" for number in range(5)]
    raw = {"name": name, "description": name, "worker": worker, "examples": examples}
    return parse_manifest(raw, base=Path("/"))


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Site]:
    """Two meta workers and three experts, which the registry knows from before."""
    chaos, seen = Chaos(random.Random(SEED)), list[Happening]()
    metas = [Meta(lambda body: chaos.disturb(undisturbed(body, True)), "meta") for _ in range(2)]
    experts = {
        name: [
            FakeWorker(lambda body: chaos.disturb(undisturbed(body, False)), name)
            for _ in range(count)
        ]
        for name, count in EXPERTS.items()
    }
    every = [worker for replicas in experts.values() for worker in replicas]
    async with AsyncExitStack() as stack:
        for worker in (*metas, *every):
            await stack.enter_async_context(worker)
        settings = Settings(
            state_dir=folder,
            cache_dir=folder,
            meta_urls=[m.endpoint.base_url.removesuffix("/v1") for m in metas],
            starter_experts=False,
            probe_seconds=0.1,
            meta_stall_seconds=0.5,
            expert_stall_seconds=0.5,
            meta_first_token_seconds=2,
            expert_first_token_seconds=2,
            hedge_seconds=0.3,
        )
        registry, zero = Registry(settings.database), np.zeros(3, np.float32)
        row = HeadRow(np.zeros((3, HIDDEN), np.float32), zero, zero).to_bytes()
        for slot, (name, replicas) in enumerate(experts.items()):
            registry.add(manifest(name, replicas), slot, row, f"fake/{ROW_FORMAT}", None)
        registry.close()
        app = create_app(settings, None, observe=seen.append)
        url = await stack.enter_async_context(serving(app))
        snapshots = app.state.services.snapshots
        await until(lambda: len(snapshots.current.experts) == len(EXPERTS), 10)
        yield Site(app, url, metas, every, chaos, seen)


async def ask(client: aiohttp.ClientSession, url: str, question: str) -> str:
    """The raw stream; asks again where the server says that it has no model now."""
    body = {
        "model": "trivium",
        "messages": [{"role": "user", "content": question}],
        "stream": True,
    }
    for _ in range(ASKS):
        async with client.post(f"{url}/v1/chat/completions", json=body) as response:
            raw = await response.text()
            if response.status == 200:
                return raw
            assert response.status in (429, 502, 503, 504), raw
            assert json.loads(raw)["error"]["code"]
        await asyncio.sleep(0.1)
    return pytest.fail(f"refused {ASKS} times, lastly: {raw}")


def text_of(raw: str) -> str:
    """The text of a stream that is a valid one, and complete."""
    *events, done, end = raw.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert sum("role" in choice["delta"] for choice in choices) == 1
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["stop"]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def ask_all(site: Site, questions: list[str]) -> dict[str, str]:
    room = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

        async def one(question: str) -> str:
            async with room:
                return await ask(client, site.url, question)

        answers = await asyncio.gather(*map(one, questions))
    return dict(zip(questions, answers, strict=True))


@pytest.mark.timeout(180)
async def test_no_stream_is_truncated_or_doubled(tmp_path: Path) -> None:
    questions = [f"q{number}" for number in range(STREAMS)]
    async with running(tmp_path) as site:
        snapshots = site.app.state.services.snapshots
        killer = asyncio.create_task(site.chaos.kill(site.workers, snapshots))
        answers = await ask_all(site, questions)
        killer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await killer
        for question, raw in answers.items():
            assert text_of(raw) == "".join(words(question))
        for kind in (Retried, BreakerChanged):
            assert any(isinstance(happening, kind) for happening in site.happenings), kind
        legs = [h for h in site.happenings if isinstance(h, LegStarted)]
        assert any(leg.instead_of is not None for leg in legs)
        assert all(site.chaos.done[how] for how in (*BREAKS, "refused", "killed"))
        # One that is started anew between two probes may answer a few before that is noticed.
        assert sum(meta.answered_without_head for meta in site.metas) <= STREAMS // 100
        assert not any(snapshots.token_in_use(FIRST_ID + slot) for slot in range(SLOTS))
