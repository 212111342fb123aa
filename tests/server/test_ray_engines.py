"""Workers that a cluster places, with a cluster in memory: followed, woken, kept, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError

from experts.manifest import ManagedWorker as ManagedSpec
from experts.plan.accelerators import accelerator
from experts.plan.models import parse_model
from experts.plan.placement import Load
from experts.starter import arithmetic_folder
from server.ray import engines
from server.ray.application import Arguments
from server.ray.directory import FORGET_SECONDS, NEW_SECONDS, Directory
from server.ray.engines import ClusterEngines
from server.ray.model_server import REQUESTS, Model, NodeLock
from server.ray.placement import Defaults, Placed, model_deployment, scale_of
from server.ray.scaling import Scale, Share, by_requests, needs
from server.settings import Settings
from server.workers.worker import Worker, WorkerFailed
from tests.fakes import FakeWorker, says
from tests.server.workers.test_registration import until

CHECKPOINT = arithmetic_folder() / "checkpoint"


class FakeCluster:
    """Places at once what it is told to, at the URLs it was given."""

    def __init__(self) -> None:
        self.models: dict[str, Placed] = {}
        self.urls: dict[str, str] = {}
        self.deployed: list[str] = []
        self.deleted: list[str] = []
        self.away = False

    async def placed(self) -> Mapping[str, Placed]:
        if self.away:
            raise TimeoutError
        return dict(self.models)

    async def deploy(self, name: str, spec: ManagedSpec) -> None:
        self.deployed.append(name)
        self.models[name] = Placed((self.urls[name],), deployed=True)

    async def delete(self, name: str) -> None:
        self.deleted.append(name)
        del self.models[name]

    async def wake(self, name: str) -> None:
        if name not in self.urls:
            raise RuntimeError("no node has room")
        self.models[name] = Placed((self.urls[name],), deployed=True)

    def sleep(self, name: str) -> None:
        self.models[name] = Placed((), deployed=True, wanted=0)


class Metas:
    """A set of meta workers."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []

    def add(self, worker: Worker) -> None:
        self.workers.append(worker)
        worker.start()

    async def remove(self, worker: Worker) -> None:
        self.workers.remove(worker)
        await worker.stop()


@asynccontextmanager
async def running(cluster: FakeCluster, tmp_path: Path) -> AsyncIterator[tuple[Any, Metas]]:
    metas = Metas()
    settings = Settings(state_dir=tmp_path, probe_seconds=0.02)
    async with aiohttp.ClientSession() as session:
        made = ClusterEngines(settings, session, cluster)
        made.metas(None, metas, lambda worker: None)
        try:
            yield made, metas
        finally:
            await made.close()
            await asyncio.gather(*(worker.stop() for worker in metas.workers))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(engines, "DEPLOY_AGAIN_SECONDS", 0.01)


@pytest.fixture
async def calc() -> AsyncIterator[FakeWorker]:
    async with FakeWorker(says("42"), "calc") as worker:
        yield worker


def base(worker: FakeWorker) -> str:
    return worker.endpoint.base_url.removesuffix("/v1")


def spec(**options: Any) -> ManagedSpec:
    return ManagedSpec(checkpoint=CHECKPOINT, **options)


async def test_an_expert_is_deployed_and_its_replicas_followed(
    calc: FakeWorker, tmp_path: Path
) -> None:
    cluster = FakeCluster()
    cluster.urls["calc"] = base(calc)
    async with running(cluster, tmp_path) as (made, _):
        worker = made.expert("calc", spec(replicas=2), lambda worker: None)
        worker.start()
        (endpoint,) = await worker.ready()
        assert (endpoint.base_url, endpoint.asleep) == (calc.endpoint.base_url, False)
        assert (cluster.deployed, str(worker.status)) == (["calc"], "live")
        await calc.stop()
        await asyncio.sleep(0.1)
        assert worker.endpoints == (endpoint,), "it is announced: a probe may be late under load"
        cluster.models["calc"] = Placed((), deployed=True)
        await until(lambda: worker.status.state == "starting" and not worker.endpoints)
        cluster.models["calc"] = Placed((), deployed=True, reason="no GPU has room")
        await until(lambda: str(worker.status) == "failed: no GPU has room")
        await worker.stop()
        assert cluster.deleted == ["calc"]


async def test_one_that_may_sleep_is_woken(calc: FakeWorker, tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.urls["calc"] = base(calc)
    async with running(cluster, tmp_path) as (made, _):
        worker = made.expert("calc", spec(min_replicas=0), lambda worker: None)
        worker.start()
        await worker.ready()
        cluster.sleep("calc")
        await until(lambda: worker.status.reason == "asleep")
        (endpoint,) = worker.endpoints
        assert endpoint.asleep
        assert endpoint.model == "calc"
        await worker.wake()
        assert [e.base_url for e in worker.endpoints] == [calc.endpoint.base_url]
        cluster.sleep("calc")
        await until(lambda: worker.status.reason == "asleep")
        del cluster.urls["calc"]
        with pytest.raises(WorkerFailed, match="no node has room"):
            await worker.wake()


async def test_one_that_another_server_removed_is_deployed_again(
    calc: FakeWorker, tmp_path: Path
) -> None:
    cluster = FakeCluster()
    cluster.urls["calc"] = base(calc)
    async with running(cluster, tmp_path) as (made, _):
        worker = made.expert("calc", spec(), lambda worker: None)
        worker.start()
        await worker.ready()
        await cluster.delete("calc")
        await until(lambda: cluster.deployed == ["calc", "calc"])


async def test_a_server_that_stops_leaves_experts_where_they_are(
    calc: FakeWorker, tmp_path: Path
) -> None:
    cluster = FakeCluster()
    cluster.urls["calc"] = base(calc)
    async with running(cluster, tmp_path) as (made, _):
        worker = made.expert("calc", spec(), lambda worker: None)
        worker.start()
        await worker.ready()
        await made.close()
        await worker.stop()
    assert cluster.deleted == []


async def test_meta_workers_come_and_go(calc: FakeWorker, tmp_path: Path) -> None:
    cluster = FakeCluster()
    async with running(cluster, tmp_path) as (_, metas):
        cluster.models["meta"] = Placed((base(calc), "http://127.0.0.1:9"), deployed=True)
        await until(lambda: [w.name for w in metas.workers] == ["meta", "meta.2"])
        cluster.models["meta"] = Placed((base(calc),), deployed=True)
        await until(lambda: [w.name for w in metas.workers] == ["meta"])
        cluster.away = True
        await asyncio.sleep(0.05)
        assert len(metas.workers) == 1, "what is known goes on"


async def test_the_directory_forgets_who_is_silent() -> None:
    now = 0.0
    directory = Directory(lambda: now)
    now = NEW_SECONDS
    await directory.announce("meta", "http://a")
    await directory.announce("meta", "http://b")
    await directory.announce("calc", "http://c")
    await directory.leave("meta", "http://b")
    assert await directory.replicas() == {"meta": ("http://a",), "calc": ("http://c",)}
    now += FORGET_SECONDS - 1
    await directory.announce("calc", "http://c")
    now += 2
    assert await directory.replicas() == {"calc": ("http://c",)}


async def test_a_new_directory_does_not_say_that_there_is_nobody() -> None:
    """Its predecessor was lost with its node, and the replicas are where they were."""
    now = 100.0
    directory = Directory(lambda: now)
    await directory.announce("meta", "http://a")
    assert await directory.replicas() is None
    now += NEW_SECONDS
    assert await directory.replicas() == {"meta": ("http://a",)}


async def test_one_that_goes_while_it_is_deployed_is_gone(
    calc: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster()
    cluster.urls["calc"] = base(calc)
    slowly, deploy = asyncio.Event(), cluster.deploy

    async def deploys_slowly(name: str, given: ManagedSpec) -> None:
        await slowly.wait()
        await deploy(name, given)

    monkeypatch.setattr(cluster, "deploy", deploys_slowly)
    async with running(cluster, tmp_path) as (made, _):
        worker = made.expert("calc", spec(), lambda worker: None)
        worker.start()
        await asyncio.sleep(0.02)
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0.05)
        slowly.set()
        await stopping
    assert (cluster.deployed, cluster.deleted, cluster.models) == (["calc"], ["calc"], {})


async def test_processes_of_a_node_have_its_lock_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    order: list[str] = []

    async def second() -> None:
        async with NodeLock("gpu-0"):
            order.append("second")

    async with NodeLock("gpu-0"), NodeLock("gpu-1"):
        waiting = asyncio.create_task(second())
        given_up = asyncio.create_task(second())
        await asyncio.sleep(0.3)
        given_up.cancel()
        order.append("first")
    await waiting
    assert order == ["first", "second"]


async def test_one_that_cannot_be_deleted_is_stopped_all_the_same(
    calc: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(name: str) -> None:
        raise TimeoutError

    cluster = FakeCluster()
    cluster.urls["calc"] = base(calc)
    async with running(cluster, tmp_path) as (made, _):
        worker = made.expert("calc", spec(), lambda worker: None)
        worker.start()
        await worker.ready()
        monkeypatch.setattr(cluster, "delete", fails)
        await worker.stop()
        assert worker.status.state == "stopped"


@pytest.mark.parametrize(
    ("requests", "calls", "wanted"), [([0, 0], 0, 0), ([3, 2], 0, 3), ([8], 0, 4), ([0], 1, 1)]
)
def test_replicas_follow_requests(requests: list[float], calls: int, wanted: int) -> None:
    scale = Scale(max_replicas=4, target_requests=2).autoscaling()
    context: Any = SimpleNamespace(
        aggregated_metrics={REQUESTS: dict(enumerate(requests))},
        current_num_replicas=len(requests),
        target_num_replicas=len(requests),
        total_num_requests=calls,
        config=scale,
    )
    assert by_requests(context) == (wanted, {})


def test_without_figures_nothing_changes() -> None:
    context: Any = SimpleNamespace(
        aggregated_metrics={}, current_num_replicas=2, target_num_replicas=3
    )
    assert by_requests(context) == (3, {})


def test_a_manifest_bounds_the_replicas() -> None:
    found = scale_of(spec(min_replicas=0, replicas=3), Defaults(scale=Scale(target_requests=5)))
    assert (found.min_replicas, found.max_replicas, found.target_requests) == (0, 3, 5)
    with pytest.raises(ValidationError, match="min_replicas"):
        spec(min_replicas=2, replicas=1)


def test_the_planner_says_what_a_replica_needs() -> None:
    shape = parse_model(str(CHECKPOINT), "calc")
    small = needs(shape, accelerator("H100"), Load(2048, 32))
    assert 0 < (small.num_gpus or 0) < 0.1
    larger = needs(shape, accelerator("L4"), Load(2048, 32))
    assert (small.num_gpus or 0) < (larger.num_gpus or 0) < 1
    assert (needs(shape, accelerator("cpu"), Load(2048, 32)).memory or 0) > 1 << 30
    options = Share(num_cpus=2, resources={"expert": 1}).options(small)
    assert options == {"num_cpus": 2, "num_gpus": small.num_gpus, "resources": {"expert": 1}}
    assert Share(num_gpus=0).options(small) == {"num_cpus": 1, "resources": {}}


def test_a_deployment_is_of_its_model() -> None:
    model = Model("calc", CHECKPOINT, drain_seconds=20)
    defaults = Defaults(device="H100", environment={"TRIVIUM_PROBE_SECONDS": "1"})
    scale = Scale(min_replicas=0, max_replicas=3)
    deployment = model_deployment(model, scale, Share(), defaults)._bound_deployment
    assert deployment.name == "calc"
    assert deployment.ray_actor_options is not None
    assert deployment.ray_actor_options["runtime_env"]["env_vars"] == defaults.environment
    assert deployment.ray_actor_options["num_gpus"] > 0
    assert 0 < deployment.init_args[0].gpu_share < 0.1
    config = deployment._deployment_config.autoscaling_config
    assert config is not None
    assert (config.min_replicas, config.max_replicas, config.initial_replicas) == (0, 3, 1)


def test_the_same_expert_is_the_same_deployment() -> None:
    """Each orchestrator deploys what the registry has; only another one replaces replicas."""

    def version(checkpoint: Path, replicas: int = 1) -> str | None:
        scale = Scale(max_replicas=replicas)
        app = model_deployment(Model("calc", checkpoint), scale, Share(), Defaults())
        return app._bound_deployment.version

    assert version(CHECKPOINT) is not None
    assert version(CHECKPOINT) == version(CHECKPOINT, replicas=3)
    assert version(CHECKPOINT) != version(CHECKPOINT.parent)


def test_the_meta_llm_has_a_share_of_a_gpu_too() -> None:
    deployment = model_deployment(Model("meta", None), Scale(), Share(), Defaults(device="L4"))
    options = deployment._bound_deployment.ray_actor_options
    assert options is not None
    assert 0 < options["num_gpus"] < 1


def test_arguments_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValidationError, match="TRIVIUM_DATABASE_URL"):
        Arguments.model_validate({"orchestrators": {"max_replicas": 2}})
    with pytest.raises(ValidationError, match="min_replicas"):
        Arguments.model_validate({"meta": {"scale": {"min_replicas": 3}}})
    with pytest.raises(ValidationError, match="replica"):
        Arguments.model_validate({"replica": 3})


def test_settings_come_from_the_environment_given() -> None:
    arguments = Arguments(
        environment={
            "TRIVIUM_MODEL_DIRS": '["/models"]',
            "TRIVIUM_DRAIN_SECONDS": "60",
            "TRIVIUM_DATABASE_URL": "postgresql://trivium:secret@db/trivium",
            "HF_HUB_OFFLINE": "1",
        }
    )
    settings = arguments.settings()
    assert settings.keys_required, "other machines reach it"
    assert (settings.model_dirs, settings.drain_seconds) == ((Path("/models"),), 60.0)
    told = arguments.defaults(settings).environment
    assert "TRIVIUM_DATABASE_URL" not in told, "a worker has no business with it"
    assert told["HF_HUB_OFFLINE"] == "1"


def test_a_replica_listens_where_others_reach_it() -> None:
    model = Model("calc", CHECKPOINT, ("--max-model-len", "1024"), gpu_share=0.2)
    command = model.command(Settings(), CHECKPOINT, "10.0.0.7", 4000)
    hosts = [command.argv[i + 1] for i, a in enumerate(command.argv) if a == "--host"]
    assert hosts[-1] == "10.0.0.7"
    assert command.argv[command.argv.index("--port") + 1] == "4000"
    shares = [command.argv[i + 1] for i, a in enumerate(command.argv) if "utilization" in a]
    assert shares[-1] == "0.2"
    meta = replace(model, name="meta", checkpoint=None)
    assert (
        "router.vllm_plugin.gate:ExpertGate"
        in meta.command(Settings(), CHECKPOINT, "10.0.0.7", 4000).argv
    )
