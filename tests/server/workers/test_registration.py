"""Experts come and go: every step over real HTTP, against a fake meta worker with a real gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from experts.registry import Registry, RegistryUnavailable
from router.background import general_queries
from router.encode import Encoder
from router.general import General, Progress, encode_general
from router.head import Background
from router.learn import Together, learn_row, learn_together
from router.meta_client import MetaError
from server.app import create_app
from server.settings import Settings
from tests.fake_meta import FIRST_ID, HIDDEN, FakeMeta
from tests.fakes import FakeWorker, refuses, says
from tests.server.conftest import serving

SUMS = [
    f"{verb} {a} plus {a + 3}{end}"
    for verb in ("compute", "calculate", "please compute the sum of", "add")
    for a, end in ((12, ""), (405, "."), (7, " please"), (88, "?"), (931, ""))
]
STARS = [
    f"{verb} the {star} telescope star{end}"
    for verb in ("observe", "describe", "photograph with", "where is")
    for star, end in (("Vega", ""), ("Sirius", "."), ("Rigel", " please"), ("Deneb", "?"))
]


@dataclass
class Site:
    """A running orchestrator, its fake meta and one fake expert."""

    app: FastAPI
    http: httpx.AsyncClient
    meta: FakeMeta
    expert: FakeWorker

    def manifest(self, name: str = "sums", examples: list[str] = SUMS, **other: Any) -> Any:
        worker = {"url": self.expert.endpoint.base_url, "model": self.expert.endpoint.model}
        return {
            "name": name,
            "description": "Sums.",
            "worker": worker,
            "examples": examples,
            **other,
        }

    async def add(self, *args: Any, **kwargs: Any) -> httpx.Response:
        return await self.http.post("/v1/experts", json=self.manifest(*args, **kwargs))

    async def live(self) -> list[str]:
        """Names of the models a client sees."""
        data = (await self.http.get("/v1/models")).json()["data"]
        return [model["id"] for model in data]

    def slots_that_can_win(self) -> list[int]:
        return [int(slot) for slot in np.flatnonzero(np.isfinite(self.meta.bias[0]))]


@asynccontextmanager
async def running(
    meta: FakeMeta, expert: FakeWorker, folder: Path, **others: Any
) -> AsyncIterator[Site]:
    """An orchestrator with its state in `folder`; `others` are further settings."""
    fields = {"meta_url": meta.url, "starter_experts": False, "probe_seconds": 0.05, **others}
    settings = Settings(state_dir=folder / "state", cache_dir=folder / "cache", **fields)
    app = create_app(settings, None)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
        await until(lambda: app.state.services.snapshots.current.meta)
        yield Site(app, http, meta, expert)


async def until(condition: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True, scope="module")
def general_traffic() -> Iterator[None]:
    """General traffic is encoded with the fake meta worker once, not in every test."""
    once: list[General] = []

    async def encode_once(encoder: Encoder, say: Progress) -> General:
        if not once:
            once.append(await encode_general(encoder, say))
        return once[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("router.learn.encode_general", encode_once)
        yield


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(FakeMeta())
        expert = await stack.enter_async_context(FakeWorker(says("42"), "calc"))
        yield await stack.enter_async_context(running(meta, expert, tmp_path))


async def test_a_registered_expert_is_live_and_told_apart(site: Site) -> None:
    response = await site.add()
    assert response.status_code == 201, response.text
    view = response.json()
    assert (view["state"], view["slot"], view["examples"]) == ("live", 0, len(SUMS))
    assert view["accuracy"] >= 0.75
    assert sum(view["routes"].values()) == len(SUMS) // 5
    assert view["routes"]["sums"] == view["accuracy"] * (len(SUMS) // 5)
    assert await site.live() == ["trivium", "trivium/meta", "trivium/sums"]
    assert site.slots_that_can_win() == [0]
    expert = site.app.state.services.snapshots.current.by_name("sums")
    assert expert.token_id == FIRST_ID
    assert expert.endpoints[0].model == "calc"


async def test_an_expert_elsewhere_may_want_a_key(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The manifest names a variable of the server's environment; the key is kept nowhere."""
    site.expert.key = "sk-poems"
    assert "does not serve a model" in (await site.add()).text
    manifest = site.manifest()
    manifest["worker"]["api_key_env"] = "TRIVIUM_KEY_POEMS"
    answer = await site.http.post("/v1/experts", json=manifest)
    assert "environment has no TRIVIUM_KEY_POEMS" in answer.text
    monkeypatch.setenv("TRIVIUM_KEY_POEMS", "sk-wrong")
    assert "not with the key in" in (await site.http.post("/v1/experts", json=manifest)).text
    monkeypatch.setenv("TRIVIUM_KEY_POEMS", "sk-poems")
    answer = await site.http.post("/v1/experts", json=manifest)
    assert answer.status_code == 201, answer.text
    question = {"model": "trivium/sums", "messages": [{"role": "user", "content": "1+1"}]}
    written = await site.http.post("/v1/chat/completions", json=question)
    assert written.json()["choices"][0]["message"]["content"] == "42"
    assert "sk-poems" not in answer.text + written.text + "".join(capfd.readouterr())
    manifest["worker"]["api_key_env"] = "TRIVIUM_DATABASE_URL"
    refused = await site.http.post("/v1/experts", json=manifest | {"name": "thief"})
    assert refused.status_code == 400
    assert "called TRIVIUM_KEY_" in refused.text


async def test_two_experts_get_slots_of_their_own(site: Site) -> None:
    await site.add()
    first = site.meta.rows[:, 0].copy()
    response = await site.add("stars", STARS)
    assert response.status_code == 201, response.text
    assert response.json()["slot"] == 1
    assert np.array_equal(site.meta.rows[:, 0], first), "the first expert's row was changed"


async def test_without_waiting_progress_can_be_followed(site: Site) -> None:
    response = await site.http.post("/v1/experts", params={"wait": "false"}, json=site.manifest())
    assert response.status_code == 202
    assert response.json()["registration"]["state"] == "running"
    while (view := (await site.http.get("/v1/experts/sums")).json())["state"] == "registering":  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert (view["state"], view["registration"]["state"]) == ("live", "done")


async def test_a_name_in_use_is_refused(site: Site) -> None:
    await site.add()
    response = await site.add()
    assert response.status_code == 409
    assert "remove it first" in response.json()["error"]["message"]


async def test_an_unreachable_worker_is_refused_and_nothing_changes(site: Site) -> None:
    pushes = site.meta.pushes
    worker = {"url": "http://127.0.0.1:9/v1", "model": "calc"}
    response = await site.add(worker=worker)
    assert response.status_code == 422
    assert "does not serve a model named 'calc'" in response.json()["error"]["message"]
    assert site.meta.pushes == pushes
    assert (await site.http.get("/v1/experts")).json()["data"] == []
    assert (await site.add()).status_code == 201, "the name stayed taken"


async def test_examples_that_are_general_queries_are_refused_and_the_head_is_restored(
    site: Site,
) -> None:
    version = site.meta.version
    response = await site.add(examples=list(general_queries()[::4]))
    assert response.status_code == 422
    assert "held-out examples" in response.json()["error"]["message"]
    await until(lambda: site.meta.version == version)
    assert site.slots_that_can_win() == []
    assert await site.live() == ["trivium", "trivium/meta"]


async def test_no_free_slot_is_refused(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(FakeMeta(slots=1))
        expert = await stack.enter_async_context(FakeWorker(says("42"), "calc"))
        site = await stack.enter_async_context(running(meta, expert, tmp_path))
        await site.add()
        response = await site.add("stars", STARS)
        assert response.status_code == 409
        assert "all 1 expert slots are taken" in response.json()["error"]["message"]


async def test_a_removed_expert_is_gone_at_once(site: Site) -> None:
    await site.add()
    assert (await site.http.delete("/v1/experts/sums")).status_code == 204
    assert await site.live() == ["trivium", "trivium/meta"]
    assert site.slots_that_can_win() == []
    assert (await site.http.get("/v1/experts/sums")).status_code == 404
    assert (await site.http.delete("/v1/experts/sums")).status_code == 404


async def test_a_slot_is_not_reused_while_a_request_could_meet_it(site: Site) -> None:
    await site.add()
    with site.app.state.services.snapshots.lease():
        await site.http.delete("/v1/experts/sums")
        assert (await site.add("stars", STARS)).json()["slot"] == 1
    assert (await site.add("again")).json()["slot"] == 0


async def test_a_meta_worker_that_comes_back_gets_the_head_before_it_is_used(site: Site) -> None:
    await site.add()
    version = site.meta.version
    site.meta.alive = False
    await until(lambda: site.app.state.services.snapshots.current.meta == ())
    assert (await site.http.get("/health")).status_code == 503
    site.meta.restart()
    site.meta.alive = True
    await until(lambda: site.app.state.services.snapshots.current.meta)
    assert site.meta.version == version


async def test_the_registry_survives_a_restart(tmp_path: Path) -> None:
    async with FakeMeta() as meta, FakeWorker(says("42"), "calc") as expert:
        async with running(meta, expert, tmp_path) as site:
            await site.add()
            rows = meta.rows.copy()
        meta.restart()
        async with running(meta, expert, tmp_path) as site:
            snapshots = site.app.state.services.snapshots
            await until(lambda: snapshots.current.by_name("sums") is not None)
            assert np.array_equal(meta.rows, rows)


async def test_an_expert_whose_worker_dies_is_masked_until_it_is_back(site: Site) -> None:
    await site.add()
    snapshots = site.app.state.services.snapshots
    model, site.expert.model = site.expert.model, "another"
    await until(lambda: snapshots.current.by_name("sums") is None)
    assert (await site.http.get("/health")).json()["experts"]["sums"].startswith("failed")
    site.expert.model = model
    await until(lambda: snapshots.current.by_name("sums") is not None)


async def test_an_expert_whose_requests_fail_is_masked_until_a_probe_succeeds(site: Site) -> None:
    await site.add()
    snapshots = site.app.state.services.snapshots
    site.expert.behave = refuses(500, "CUDA error")
    body = {"model": "trivium/sums", "messages": [{"role": "user", "content": "Hi"}]}
    for _ in range(5):
        assert (await site.http.post("/v1/chat/completions", json=body)).status_code == 502
    assert snapshots.current.by_name("sums") is None
    response = await site.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 503
    assert "failing" in response.json()["error"]["message"]
    assert (await site.http.get("/health")).json()["experts"]["sums"].startswith("failing")
    site.expert.behave = says("42")
    await until(lambda: snapshots.current.by_name("sums") is not None)
    assert (await site.http.post("/v1/chat/completions", json=body)).status_code == 200


async def test_an_expert_that_is_removed_finishes_what_it_writes(site: Site) -> None:
    await site.add()
    words = [f"{number} " for number in range(20)]
    site.expert.behave = says(*words, delay=0.03)
    body = {"model": "trivium/sums", "messages": [{"role": "user", "content": "Hi"}]}
    answer = asyncio.create_task(site.http.post("/v1/chat/completions", json=body))
    await until(lambda: "stream_options" in (site.expert.bodies or [{}])[-1])
    assert (await site.http.delete("/v1/experts/sums")).status_code == 204
    assert not answer.done()
    assert (await answer).json()["choices"][0]["message"]["content"] == "".join(words)


async def test_an_expert_with_replicas_needs_all_of_them_at_first(site: Site) -> None:
    async with FakeWorker(says("42"), "calc") as other:
        urls = [site.expert.endpoint.base_url, "http://127.0.0.1:9/v1"]
        response = await site.add(worker={"urls": urls, "model": "calc"})
        assert response.status_code == 422
        urls[1] = other.endpoint.base_url
        assert (await site.add(worker={"urls": urls, "model": "calc"})).status_code == 201
        expert = site.app.state.services.snapshots.current.by_name("sums")
        assert [endpoint.base_url for endpoint in expert.endpoints] == urls
        other.model = "another"
        view = "/v1/experts/sums"
        await until(lambda: len(site.app.state.services.snapshots.current.experts[0].endpoints) < 2)
        assert (await site.http.get(view)).json()["state"].startswith("live: 1 of 2 replicas")


@pytest.mark.parametrize(
    ("change", "message", "param"),
    [
        ({"name": "Bad Name"}, "name", "name"),
        ({"name": "meta"}, "reserved", None),
        ({"examples": ["one"]}, "examples", "examples"),
        ({"examples": [{"messages": []}] * 6}, "messages", "examples.0.messages"),
        ({"examples": 3}, "list of queries", "examples"),
        ({"worker": {}}, "worker", "worker.checkpoint"),
        ({"worker": "far"}, "checkpoint", "worker"),
        ({"worker": {"url": "ftp://x", "model": "m"}}, "url", "worker.url"),
        ({"colour": "red"}, "colour", "colour"),
    ],
)
async def test_a_bad_manifest_is_refused_with_its_place(
    site: Site, change: dict[str, Any], message: str, param: str | None
) -> None:
    response = await site.http.post("/v1/experts", json=site.manifest() | change)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert response.json()["error"]["param"] == param


async def test_examples_of_another_expert_are_refused(site: Site) -> None:
    await site.add()
    response = await site.add("more-sums", [*STARS, SUMS[3].upper()])
    assert response.status_code == 422
    message = response.json()["error"]["message"]
    assert message.startswith("1 of the 17 examples are examples of the expert 'sums' too")
    assert await site.live() == ["trivium", "trivium/meta", "trivium/sums"]


async def test_a_twin_is_refused_with_the_name_of_the_expert_that_keeps_its_queries(
    site: Site,
) -> None:
    await site.add()
    numbers = {"12": "405", "405": "7", "7": "88", "88": "931", "931": "12"}
    twins = [" ".join(numbers.get(word, word) for word in query.split()) for query in SUMS]
    response = await site.add("twin", twins)
    assert response.status_code == 422
    assert "go to the expert 'sums'" in response.json()["error"]["message"]


async def test_all_experts_can_be_fitted_together(site: Site) -> None:
    await site.add()
    await site.add("stars", STARS)
    before = site.meta.rows.copy()
    response = await site.http.post("/v1/experts/refit")
    assert response.status_code == 200, response.text
    assert set(response.json()) == {"sums", "stars"}
    assert all(own["after"] >= 0.75 for own in response.json().values())
    assert not np.array_equal(site.meta.rows[0, :2], before[0, :2])
    assert np.array_equal(site.meta.rows[1:, :2], before[1:, :2]), "more than the start was fitted"
    views = (await site.http.get("/v1/experts")).json()["data"]
    assert [view["accuracy"] for view in views] == [
        own["after"] for own in response.json().values()
    ]
    assert len(site.meta.background.bias) > 10, "there are no kinds of 'no expert'"
    assert all(set(view["routes"]) <= {"sums", "stars", "meta"} for view in views)


async def test_the_background_of_a_refit_stays_with_its_rows(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(FakeMeta())
        expert = await stack.enter_async_context(FakeWorker(says("42"), "calc"))
        async with running(meta, expert, tmp_path) as site:
            await site.add()
            await site.add("stars", STARS)
            await site.http.patch("/v1/experts/stars", json={"enabled": False})
            await site.add("tides", [text.replace("telescope star", "tide") for text in STARS])
            assert (await site.http.post("/v1/experts/refit")).status_code == 200
            kinds, version = meta.background, meta.version
            response = await site.http.patch("/v1/experts/stars", json={"enabled": True})
            assert response.status_code == 200, response.text
            assert meta.version != version
            assert np.array_equal(meta.background.weights, kinds.weights)
            version = meta.version
        meta.restart()
        async with running(meta, expert, tmp_path) as site:
            await until(lambda: meta.version == version)
            assert np.array_equal(meta.background.weights, kinds.weights)


async def test_a_refit_whose_last_look_at_the_registry_fails_is_taken_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.add()
    await site.add("stars", STARS)
    registry, stored = site.app.state.admin.registry, []
    real_update, real_state = registry.update_rows, registry.state

    def update_rows(*args: Any, **how: Any) -> None:
        real_update(*args, **how)
        stored.append(True)

    def state() -> Any:
        if stored and stored.pop():
            raise RegistryUnavailable("could not read the registry")
        return real_state()

    monkeypatch.setattr(registry, "update_rows", update_rows)
    monkeypatch.setattr(registry, "state", state)
    assert (await site.http.post("/v1/experts/refit")).status_code == 503
    await site.http.delete("/v1/experts/stars")
    await until(lambda: site.slots_that_can_win() == [0])


async def test_an_expert_that_leaves_for_good_is_probed_no_more(site: Site) -> None:
    await site.add()
    snapshots = site.app.state.services.snapshots
    site.expert.behave = says("4", failure="cut", fail_after=0)
    body = {"model": "trivium/sums", "messages": [{"role": "user", "content": "Hi"}]}
    for _ in range(6):
        await site.http.post("/v1/chat/completions", json=body)
    assert snapshots.current.by_name("sums") is None, "its breaker is open"
    await site.expert.stop()
    await until(lambda: "failed" in site.app.state.admin.fleet.expert_states()["sums"])
    await site.http.delete("/v1/experts/sums")
    await asyncio.sleep(0.2)
    tasks = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    assert "Circuits._probe" not in tasks


async def test_a_refit_that_fails_its_check_leaves_rows_and_background(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.add()
    await site.add("stars", STARS)
    version = site.meta.version
    loud = Background(np.zeros((1, HIDDEN), np.float32), np.array([1e4], np.float32))

    async def too_quiet(*args: Any) -> Together:
        together = await learn_together(*args)
        return replace(together, background=loud)

    monkeypatch.setattr("server.workers.registration.learn_together", too_quiet)
    response = await site.http.post("/v1/experts/refit")
    assert response.status_code == 422, response.text
    assert "stay at the meta LLM" in response.json()["error"]["message"]
    await until(lambda: site.meta.version == version)
    assert len(site.meta.background.bias) == 0


async def test_one_expert_alone_cannot_be_fitted_together(site: Site) -> None:
    await site.add()
    response = await site.http.post("/v1/experts/refit")
    assert response.status_code == 422
    assert "fewer than two experts" in response.json()["error"]["message"]


async def test_a_disabled_expert_is_called_no_more_until_it_is_enabled(site: Site) -> None:
    await site.add()
    response = await site.http.patch("/v1/experts/sums", json={"enabled": False})
    assert (response.status_code, response.json()["state"]) == (200, "disabled")
    assert await site.live() == ["trivium", "trivium/meta"]
    assert site.slots_that_can_win() == []
    assert (await site.add("stars", STARS)).json()["slot"] == 1, "its slot was given away"
    pinned = {"model": "trivium/sums", "messages": [{"role": "user", "content": "1+1"}]}
    answer = await site.http.post("/v1/chat/completions", json=pinned)
    assert answer.status_code == 503
    assert "disabled" in answer.json()["error"]["message"]
    assert (await site.http.patch("/v1/experts/sums", json={"enabled": True})).status_code == 200
    await until(lambda: site.app.state.services.snapshots.current.by_name("sums") is not None)
    assert site.slots_that_can_win() == [0, 1]


async def test_a_disabled_expert_stays_so_over_a_restart(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(FakeMeta())
        expert = await stack.enter_async_context(FakeWorker(says("42"), "calc"))
        async with running(meta, expert, tmp_path) as site:
            assert (await site.add()).status_code == 201
            await site.http.patch("/v1/experts/sums", json={"enabled": False})
        async with running(meta, expert, tmp_path) as site:
            view = (await site.http.get("/v1/experts/sums")).json()
            assert view["state"] == "disabled"
            await site.http.patch("/v1/experts/sums", json={"enabled": True})
            await until(lambda: "sums" in site.app.state.services.status.health().experts)
            await until(lambda: site.app.state.services.snapshots.current.by_name("sums"))


async def test_a_threshold_can_be_set_and_taken_back(site: Site) -> None:
    await site.add()
    learned = site.meta.bias[:, 0].copy()
    response = await site.http.patch("/v1/experts/sums", json={"threshold": 0.99})
    assert response.json()["threshold"] == 0.99
    assert (site.meta.bias[:2, 0] < learned[:2]).all()
    assert (await site.add("stars", STARS)).status_code == 201
    assert (site.meta.bias[:2, 0] < learned[:2]).all(), "another expert's coming undid it"
    response = await site.http.patch("/v1/experts/sums", json={"threshold": None})
    assert response.json()["threshold"] is None
    np.testing.assert_allclose(site.meta.bias[:, 0], learned)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"threshold": 1.0}, 400, "threshold"),
        ({"threshold": 0}, 400, "threshold"),
        ({"slot": 3}, 400, "slot"),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused(
    site: Site, change: dict[str, Any], status: int, words: str
) -> None:
    await site.add()
    response = await site.http.patch("/v1/experts/sums", json=change)
    assert response.status_code == status
    assert words in response.json()["error"]["message"]
    assert (await site.http.patch("/v1/experts/none", json={})).status_code == 404


async def test_counter_examples_keep_queries_away(site: Site) -> None:
    counter = [query.replace("plus", "minus") for query in SUMS]
    response = await site.add(counter_examples=counter)
    assert response.status_code == 201, response.text
    both = site.manifest("other", STARS, counter_examples=[STARS[0]])
    response = await site.http.post("/v1/experts", json=both)
    assert response.status_code == 400
    assert "a counter-example" in response.json()["error"]["message"]


async def test_rows_that_were_stored_in_another_form_are_learned_again(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(FakeMeta())
        expert = await stack.enter_async_context(FakeWorker(says("42"), "calc"))
        async with running(meta, expert, tmp_path) as site:
            assert (await site.add()).status_code == 201
            good = meta.rows[:, 0].copy()
        registry = Registry(f"sqlite:///{tmp_path / 'state' / 'registry.db'}")
        older = np.zeros(3 * HIDDEN + 3, np.float32).tobytes()
        registry.update_row("sums", older, "fake")
        registry.close()
        meta.restart()
        async with running(meta, expert, tmp_path) as site:
            await until(lambda: site.slots_that_can_win() == [0])
            np.testing.assert_allclose(meta.rows[:, 0], good, rtol=1e-3, atol=1e-4)
            assert "trivium/sums" in await site.live()


async def test_one_row_that_cannot_be_learned_again_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def learn(encoder: Encoder, name: str, *args: Any) -> Any:
        if name == "sums":
            raise MetaError("the meta worker hiccuped")
        return await learn_row(encoder, name, *args)

    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(FakeMeta())
        expert = await stack.enter_async_context(FakeWorker(says("42"), "calc"))
        async with running(meta, expert, tmp_path) as site:
            for name, examples in (("sums", SUMS), ("stars", STARS)):
                assert (await site.add(name, examples)).status_code == 201
        registry = Registry(f"sqlite:///{tmp_path / 'state' / 'registry.db'}")
        for name in ("sums", "stars"):
            registry.update_row(name, b"", "another meta LLM")
        registry.close()
        meta.restart()
        monkeypatch.setattr("server.workers.registration.learn_row", learn)
        async with running(meta, expert, tmp_path) as site:
            await until(lambda: site.slots_that_can_win() == [1])
            view = (await site.http.get("/v1/experts/sums")).json()
            assert view["state"] == "starting: it has no row for this meta LLM yet"
            assert view["registration"]["error"] == "the meta worker hiccuped"
            assert view["accuracy"] is None, "that was with the meta LLM of before"
            on = await site.http.patch("/v1/experts/sums", json={"enabled": False})
            assert on.status_code == 200
            refused = await site.http.patch("/v1/experts/sums", json={"enabled": True})
            assert refused.status_code == 503
            monkeypatch.setattr("server.workers.registration.learn_row", learn_row)
            taken = await site.http.patch("/v1/experts/sums", json={"enabled": True})
            assert taken.status_code == 200
            await until(lambda: site.slots_that_can_win() == [0, 1])
