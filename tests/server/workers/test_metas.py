"""Replicas of the meta LLM: each has the head before it is used, and all have the same one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fake_meta import FakeMeta
from tests.fakes import FakeWorker, says
from tests.server.workers.test_registration import STARS, Site, running, until


@pytest.fixture
async def metas() -> AsyncIterator[tuple[FakeMeta, FakeMeta]]:
    async with FakeMeta() as first, FakeMeta() as second:
        yield first, second


@pytest.fixture
async def site(tmp_path: Path, metas: tuple[FakeMeta, FakeMeta]) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        expert = await stack.enter_async_context(FakeWorker(says("42"), "calc"))
        urls = {"meta_url": None, "meta_urls": [meta.url for meta in metas]}
        site = await stack.enter_async_context(running(metas[0], expert, tmp_path, **urls))
        await until(lambda: len(usable(site)) == 2)
        yield site


def usable(site: Site) -> Any:
    return site.app.state.services.snapshots.current.meta


async def test_a_registration_reaches_all(site: Site, metas: tuple[FakeMeta, FakeMeta]) -> None:
    assert (await site.add()).status_code == 201
    first, second = metas
    assert first.version == second.version != ""
    assert np.array_equal(first.rows, second.rows)
    assert (await site.http.get("/health")).json()["meta"] == "live"


async def test_one_that_comes_back_gets_the_head_first(
    site: Site, metas: tuple[FakeMeta, FakeMeta]
) -> None:
    _, second = metas
    await site.add()
    second.alive = False
    await until(lambda: len(usable(site)) == 1)
    health = (await site.http.get("/health")).json()
    assert (health["status"], health["meta"]) == ("ok", "live: 1 of 2 replicas")
    assert (await site.add("stars", STARS)).status_code == 201, "one replica is enough"
    second.restart()
    second.alive = True
    await until(lambda: len(usable(site)) == 2)
    assert second.version == metas[0].version


async def test_one_that_was_started_anew_unseen(
    site: Site, metas: tuple[FakeMeta, FakeMeta]
) -> None:
    await site.add()
    metas[1].restart()
    await until(lambda: metas[1].version == metas[0].version)
    await until(lambda: len(usable(site)) == 2)


async def test_heads_are_looked_after_also_when_the_registry_cannot_be_read(
    site: Site, metas: tuple[FakeMeta, FakeMeta], monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.add()
    first, second = metas
    current, asked = second.version, []

    async def in_step() -> bool:
        asked.append(True)
        if len(asked) < 3:
            raise ValueError("another server stored what this one cannot read")
        return True

    site.app.state.admin.fleet.ask_before_repair(in_step)
    second.version = "strange"
    await until(lambda: second.version == current)
    assert first.version == current
    assert len(asked) == 3


async def test_one_that_does_not_take_the_head_is_not_used(
    site: Site, metas: tuple[FakeMeta, FakeMeta], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.workers.metas.HEAD_RETRY_SECONDS", 0.02)
    metas[1].refuses_heads = True
    assert (await site.add()).status_code == 201
    await until(lambda: [e.base_url for e in usable(site)] == [f"{metas[0].url}/v1"])
    metas[1].refuses_heads = False
    await until(lambda: len(usable(site)) == 2)
    assert metas[1].version == metas[0].version


async def test_another_meta_llm_is_not_used(tmp_path: Path) -> None:
    async with (
        FakeMeta() as first,
        FakeMeta(slots=8) as other,
        FakeWorker(says("42"), "calc") as expert,
        running(first, expert, tmp_path, meta_url=None, meta_urls=[first.url, other.url]) as site,
    ):
        assert (await site.add()).status_code == 201
        assert len(usable(site)) == 1
        loser = min(first, other, key=lambda meta: meta.pushes)
        assert loser.pushes == 0


async def test_the_only_one_gets_the_head_that_it_did_not_take(tmp_path: Path) -> None:
    async with (
        FakeMeta() as meta,
        FakeWorker(says("42"), "calc") as expert,
        running(meta, expert, tmp_path, probe_seconds=60) as site,
    ):
        assert (await site.add()).status_code == 201
        learned = meta.version
        meta.refuses_heads = True
        changed = await site.http.patch("/v1/experts/sums", json={"threshold": 0.9})
        assert changed.status_code == 200
        fleet = site.app.state.admin.fleet
        await until(lambda: fleet.meta_state().startswith("starting: up, but the meta worker"))
        assert (await site.http.get("/health")).status_code == 503
        meta.refuses_heads = False
        await until(lambda: meta.version != learned)
        await until(lambda: len(usable(site)) == 1)
