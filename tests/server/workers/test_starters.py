"""Packs of experts: registered at the start like anyone's, then fitted together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experts.manifest import Manifest
from router.learn import Together, learn_together
from tests.fake_meta import FakeMeta
from tests.fakes import FakeWorker, says
from tests.server.workers.test_registration import STARS, SUMS, Site, running, until


@pytest.fixture
async def workers() -> AsyncIterator[tuple[FakeMeta, FakeWorker]]:
    async with FakeMeta() as meta, FakeWorker(says("42"), "calc") as expert:
        yield meta, expert


@asynccontextmanager
async def with_packs(
    workers: tuple[FakeMeta, FakeWorker],
    folder: Path,
    patch: pytest.MonkeyPatch,
    *names: str,
    model: str = "calc",
    description: str = "",
    wait: bool = True,
) -> AsyncIterator[Site]:
    """An orchestrator that finds packs of these names, whose worker serves "calc"; `wait`: until
    they are live, or have failed."""
    meta, expert = workers
    manifests = [
        Manifest.model_validate(
            {
                "name": name,
                "description": description or name,
                "worker": {
                    "kind": "external",
                    "url": expert.endpoint.base_url,
                    "model": model,
                },
                "examples": [
                    {"messages": [{"role": "user", "content": text}]}
                    for text in (SUMS if name == "sums" else STARS)
                ],
            }
        )
        for name in names
    ]
    patch.setattr("server.workers.starters.installed_manifests", lambda: iter(manifests))
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(
            running(meta, expert, folder, starter_experts=bool(names))
        )
        snapshots, registrar = site.app.state.services.snapshots, site.app.state.admin.registrar

        def over(name: str) -> bool:
            progress = registrar.progress(name)
            failed = progress is not None and progress.state == "failed"
            return snapshots.current.by_name(name) is not None or failed

        if wait:
            await until(lambda: all(map(over, names)))
        yield site


async def test_packs_are_fitted_together_once_they_are_live(
    workers: tuple[FakeMeta, FakeWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta, fitted = workers[0], []

    async def counted(*args: Any) -> Together:
        fitted.append(args)
        return await learn_together(*args)

    monkeypatch.setattr("server.workers.registration.learn_together", counted)
    async with with_packs(workers, tmp_path, monkeypatch, "sums", "stars"):
        await until(lambda: len(meta.background.bias) > 10)
    async with with_packs(workers, tmp_path, monkeypatch, "sums", "stars"):
        assert len(fitted) == 1, "nothing was new, and yet they were fitted again"


async def test_a_persons_expert_keeps_its_row_when_packs_come(
    workers: tuple[FakeMeta, FakeWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = workers[0]
    async with with_packs(workers, tmp_path, monkeypatch) as site:
        assert (await site.add("stars", STARS)).status_code == 201
        rows = meta.rows[:, 0].copy()
    async with with_packs(workers, tmp_path, monkeypatch, "sums"):
        assert np.array_equal(meta.rows[:, 0], rows)
        assert len(meta.background.bias) == 0


async def test_a_pack_that_did_not_register_is_tried_again(
    workers: tuple[FakeMeta, FakeWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta, expert = workers
    other = FakeWorker(says("42"), "other")  # not what the manifest names
    async with other, with_packs((meta, expert), tmp_path, monkeypatch, "sums", model="wrong"):
        pass
    async with with_packs(workers, tmp_path, monkeypatch, "sums") as site:
        assert await site.live() == ["trivium", "trivium/meta", "trivium/sums"]
        await site.http.delete("/v1/experts/sums")
    async with with_packs(workers, tmp_path, monkeypatch, "sums", wait=False) as site:
        assert await site.live() == ["trivium", "trivium/meta"], "a person removed it"


async def test_a_changed_pack_keeps_what_a_person_chose(
    workers: tuple[FakeMeta, FakeWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_packs(workers, tmp_path, monkeypatch, "sums") as site:
        chosen = {"enabled": True, "threshold": 0.9}
        assert (await site.http.patch("/v1/experts/sums", json=chosen)).status_code == 200
    async with with_packs(workers, tmp_path, monkeypatch, "sums", description="new") as site:

        async def now() -> Any:
            return (await site.http.get("/v1/experts/sums")).json()

        async with asyncio.timeout(20):
            while (await now()).get("description") != "new" or not (await now())["threshold"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await now())["threshold"] == 0.9


async def test_a_changed_pack_that_was_switched_off_stays_off(
    workers: tuple[FakeMeta, FakeWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_packs(workers, tmp_path, monkeypatch, "sums") as site:
        await site.http.patch("/v1/experts/sums", json={"enabled": False})
    async with with_packs(
        workers, tmp_path, monkeypatch, "sums", description="new", wait=False
    ) as site:
        async with asyncio.timeout(20):
            while (  # noqa: ASYNC110
                view := (await site.http.get("/v1/experts/sums")).json()
            ).get("description") != "new":
                await asyncio.sleep(0.05)
        assert view["state"] == "disabled"
        assert await site.live() == ["trivium", "trivium/meta"]
