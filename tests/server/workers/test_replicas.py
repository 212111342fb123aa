"""Several workers as one; workers that a manifest and the settings ask for."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest
from pydantic import ValidationError

from experts.manifest import ExternalWorker, ManagedWorker
from server.relay.snapshot import Endpoint
from server.settings import Settings
from server.workers import replicas
from server.workers.banks import Banks
from server.workers.engines import LocalEngines
from server.workers.replicas import AtEachAddress, Replicas, addresses, replica_name
from server.workers.worker import Watched, Worker, WorkerFailed, WorkerStatus
from tests.fakes import FakeWorker, says
from tests.server.conftest import until


class Puppet(Watched):
    """A worker whose state a test sets."""

    def __init__(self, name: str) -> None:
        super().__init__(name, lambda worker: None)

    def start(self) -> None:
        self.started = True

    def come_up(self) -> None:
        self._set(WorkerStatus("live"), Endpoint(f"http://{self.name}/v1", "m"))

    def fail(self) -> None:
        self._set(WorkerStatus("failed", "no memory"))

    async def stop(self) -> None:
        self._set(WorkerStatus("stopped"))


def test_it_is_live_while_one_is() -> None:
    parts = [Puppet("a"), Puppet("b")]
    both = Replicas("poems", parts)
    assert (both.status.state, both.endpoints) == ("starting", ())
    parts[1].come_up()
    assert str(both.status) == "live: 1 of 2 replicas; starting"
    assert both.endpoints == parts[1].endpoints
    parts[0].come_up()
    assert str(both.status) == "live"
    assert both.endpoints == (*parts[0].endpoints, *parts[1].endpoints)
    parts[0].fail()
    assert str(both.status) == "live: 1 of 2 replicas; failed: no memory"


async def test_it_is_ready_when_all_are() -> None:
    parts = [Puppet("a"), Puppet("b")]
    both = Replicas("poems", parts)
    both.start()
    assert all(part.started for part in parts)
    ready = asyncio.create_task(both.ready())
    parts[0].come_up()
    await asyncio.sleep(0.01)
    assert not ready.done()
    parts[1].come_up()
    assert await ready == both.endpoints
    parts[1].fail()
    with pytest.raises(WorkerFailed, match="no memory"):
        await both.ready()
    await both.stop()
    assert both.status.state == "stopped"


class Names:
    """What names resolve to; None: the resolver is away."""

    def __init__(self) -> None:
        self.urls: set[str] | None = set()

    async def __call__(self, url: str) -> set[str]:
        if self.urls is None:
            raise OSError("no resolver")
        return set(self.urls)


async def test_servers_at_each_address_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    names, puppets = Names(), dict[str, Puppet]()
    monkeypatch.setattr(replicas, "addresses", names)

    def external(name: str, url: str) -> Puppet:
        puppets[url] = Puppet(name)
        return puppets[url]

    worker = AtEachAddress("poems", "http://poems:8000/v1", external, 0.01)
    assert str(worker.status) == "starting"
    worker.start()
    with pytest.raises(WorkerFailed, match="no address"):
        await worker.ready()
    names.urls = {"http://10.0.0.1:8000/v1", "http://10.0.0.2:8000/v1"}
    await until(lambda: len(puppets) == 2)
    one, two = puppets["http://10.0.0.1:8000/v1"], puppets["http://10.0.0.2:8000/v1"]
    assert (one.name, two.name) == ("poems", "poems.2")
    one.fail()
    ready = asyncio.create_task(worker.ready())
    await asyncio.sleep(0)
    two.come_up()
    assert await ready == worker.endpoints == two.endpoints
    assert str(worker.status) == "live: 1 of 2 replicas; failed: no memory"
    names.urls = None
    await asyncio.sleep(0.03)
    assert worker.endpoints == two.endpoints  # what is known goes on
    names.urls = {"http://10.0.0.1:8000/v1"}
    await until(lambda: not worker.endpoints)
    assert two.status.state == "stopped"
    await worker.stop()
    assert worker.status.state == one.status.state == "stopped"


async def test_a_name_with_several_addresses_stands_for_as_many_servers() -> None:
    assert await addresses("http://127.0.0.1:8000/v1") == {"http://127.0.0.1:8000/v1"}
    assert await addresses("http://[::1]/v1") == {"http://[::1]:80/v1"}
    with pytest.raises(socket.gaierror):
        await addresses("http://no-such-name.invalid/v1")


async def test_a_server_is_watched_at_its_address(tmp_path: Path) -> None:
    async with FakeWorker(says("a")) as fake, aiohttp.ClientSession() as session:
        port = fake.endpoint.base_url.rpartition(":")[2].removesuffix("/v1")
        engines = LocalEngines(Settings(state_dir=tmp_path), session)
        told = {"url": f"http://localhost:{port}/v1", "each_address": True, "model": "m"}
        spec = ExternalWorker.model_validate({**told, "model": fake.endpoint.model})
        worker = engines.expert("poems", spec, lambda worker: None)
        worker.start()
        (endpoint,) = await worker.ready()
        assert endpoint.base_url == f"http://127.0.0.1:{port}/v1"
        await worker.stop()


def test_names_of_replicas_belong_to_no_expert() -> None:
    assert [replica_name("poems", n) for n in (1, 2)] == ["poems", "poems.2"]


async def test_workers_as_asked_for(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path, meta_urls=["http://10.0.0.1:1/", "http://10.0.0.2:1"], meta_replicas=3
    )
    async with aiohttp.ClientSession() as session:
        engines = LocalEngines(settings, session)
        urls = ["http://10.0.0.3/v1", "http://10.0.0.4/v1/"]
        external = ExternalWorker.model_validate({"urls": urls, "model": "m"})
        assert isinstance(engines.expert("poems", external, lambda worker: None), Replicas)
        assert external.bases == ("http://10.0.0.3/v1", "http://10.0.0.4/v1")
        behind = {"url": "http://poems:8000/v1", "each_address": True, "model": "m"}
        each = ExternalWorker.model_validate(behind)
        assert isinstance(engines.expert("poems", each, lambda worker: None), AtEachAddress)
        for wrong in ({"url": "https://poems/v1"}, {"url": None, "urls": urls}):
            with pytest.raises(ValidationError, match="each_address"):
                ExternalWorker.model_validate({**behind, **wrong})
        managed = ManagedWorker(checkpoint=tmp_path, replicas=2)
        assert isinstance(engines.expert("poems", managed, lambda worker: None), Replicas)
        alone = ManagedWorker(checkpoint=tmp_path)
        assert engines.expert("poems", alone, lambda worker: None).name == "poems"
        elsewhere, here = MetaWorkers(), MetaWorkers()
        engines.metas(None, elsewhere, lambda worker: None)
        assert [worker.name for worker in elsewhere.added] == ["meta", "meta.2"]
        engines.metas(tmp_path, here, lambda worker: None)
        assert [worker.name for worker in here.added] == ["meta", "meta.2", "meta.3"]


class MetaWorkers:
    """A set of meta workers that starts none."""

    def __init__(self) -> None:
        self.added: list[Worker] = []

    def add(self, worker: Worker) -> None:
        self.added.append(worker)

    async def remove(self, worker: Worker) -> None:
        self.added.remove(worker)


def test_replicas_keep_out_of_banks(tmp_path: Path) -> None:
    from experts.starter import arithmetic_folder

    checkpoint = arithmetic_folder() / "checkpoint"
    assert Banks.takes(ManagedWorker(checkpoint=checkpoint))
    assert not Banks.takes(ManagedWorker(checkpoint=checkpoint, replicas=2))


def test_settings_name_meta_workers_in_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_META_URLS", '["http://a", "http://b"]')
    assert Settings().meta_bases == ("http://a", "http://b")
    with pytest.raises(ValueError, match="either TRIVIUM_META_URL or TRIVIUM_META_URLS"):
        Settings(meta_url="http://c")
    monkeypatch.delenv("TRIVIUM_META_URLS")
    assert Settings(meta_url="http://c/").meta_bases == ("http://c",)
    assert Settings().meta_bases == ()
