"""What an orchestrator asks of the cluster: that experts are deployed, and where replicas are."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from ray import serve
from ray.serve.schema import ServeStatus

from experts.manifest import ManagedWorker as ManagedSpec
from experts.plan.accelerators import accelerator
from experts.plan.models import DEFAULT_META, parse_model
from experts.plan.placement import UTILIZATION, Load
from server.ray.directory import NAME
from server.ray.model_server import Model, ModelServer
from server.ray.scaling import Scale, Share, needs

REPORT_SECONDS = 5.0
"""How long the cluster may take to say how things are."""
THREADS = 8
"""For calls of Ray that block, and, while its controller is away, do so for long."""
MANY = 1000
"""Calls of a replica at once: they only ask for its address."""


T = TypeVar("T")


@dataclass(frozen=True)
class Placed:
    """A model on the cluster. `deployed`: it is to be there; `wanted`: replicas that the cluster
    wants now; `reason`: why it does not come up."""

    urls: tuple[str, ...] = ()
    """Base URLs (without /v1) of replicas that answer."""
    deployed: bool = False
    wanted: int = 1
    reason: str = ""


class Cluster(Protocol):
    """Who places models."""

    async def placed(self) -> Mapping[str, Placed]:
        """All models by name; "meta" is one of them."""
        ...

    async def deploy(self, name: str, spec: ManagedSpec) -> None:
        """Have an expert served; nothing changes if it is."""
        ...

    async def delete(self, name: str) -> None: ...

    async def wake(self, name: str) -> None:
        """Have a replica started if there is none, and wait until one answers."""
        ...


@dataclass(frozen=True)
class Defaults:
    """For experts, whose manifests say only how many replicas there may be."""

    scale: Scale = field(default_factory=Scale)
    share: Share = field(default_factory=Share)
    device: str = "cpu"
    """What nodes have, by the planner's name: "cpu", "H100", "L4", …"""
    context: int = 4096
    concurrency: int = 32
    """Sequences at once that a replica's KV cache should hold, each of `context` tokens."""
    drain_seconds: float = 300.0
    meta: Path | None = None
    """The meta LLM's folder; None: the one that is fetched."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for replicas' processes."""


def model_deployment(
    model: Model, scale: Scale, share: Share, defaults: Defaults
) -> serve.Application:
    """A Serve deployment of a model, scaled by what its replicas have to do."""
    options = share.options(_needs(model, defaults))
    if gpus := options.get("num_gpus"):
        model = replace(model, gpu_share=round(UTILIZATION * min(gpus, 1), 4))
    if defaults.environment:
        options["runtime_env"] = {"env_vars": dict(defaults.environment)}
    deployment = serve.deployment(
        name=model.name,
        autoscaling_config=scale.autoscaling(),
        ray_actor_options=options,
        max_ongoing_requests=MANY,
        graceful_shutdown_timeout_s=model.drain_seconds + 30,
        health_check_period_s=5,
    )(ModelServer)
    # Ray replaces the replicas of another version, and gives each deployment without one a new one.
    version = hashlib.sha256(repr((model, options)).encode()).hexdigest()[:16]
    return deployment.options(version=version, _internal=True).bind(model)


def model_of(name: str, spec: ManagedSpec, defaults: Defaults, application: str) -> Model:
    """An expert as its replicas are told of it."""
    return Model(
        name, spec.checkpoint, spec.args, application=application,
        drain_seconds=defaults.drain_seconds,
    )  # fmt: skip


def scale_of(spec: ManagedSpec, defaults: Defaults) -> Scale:
    """How an expert is scaled: by the defaults, within what its manifest allows."""
    bounds = {"min_replicas": spec.min_replicas, "max_replicas": spec.replicas}
    return defaults.scale.model_copy(update=bounds)


def _needs(model: Model, defaults: Defaults) -> Share:
    """By the planner; nothing for a checkpoint that cannot be read here. Raises PlanError."""
    checkpoint = model.checkpoint or defaults.meta
    if checkpoint is None:
        shape = DEFAULT_META
    elif checkpoint.is_dir():
        shape = parse_model(str(checkpoint), model.name)
    else:
        return Share()
    load = Load(defaults.context, defaults.concurrency)
    return needs(shape, accelerator(defaults.device, measure=False), load)


class ServeCluster:
    """The cluster that this process is in. Each expert is a Serve application of its own, so
    that it comes and goes while others run."""

    def __init__(self, defaults: Defaults, application: str) -> None:
        """`application` is the one that has the directory and the meta LLM."""
        self._defaults, self._application = defaults, application
        self._directory = serve.get_deployment_handle(NAME, application)
        self._prefix = f"{application}-expert-"
        self._threads = ThreadPoolExecutor(THREADS, "ray")
        self._asked: asyncio.Future[ServeStatus] | None = None

    async def placed(self) -> Mapping[str, Placed]:
        """Raises TimeoutError, what Ray raises while its controller is away, and RuntimeError while
        the directory does not know yet."""
        if self._asked is None or self._asked.done():  # one at a time: it may block
            self._asked = asyncio.ensure_future(self._blocking(serve.status))
        async with asyncio.timeout(REPORT_SECONDS):
            urls, status = await asyncio.gather(
                self._directory.replicas.remote(), asyncio.shield(self._asked)
            )
        if urls is None:
            raise RuntimeError("the directory has just been started")
        found = {"meta": Placed(urls.get("meta", ()), True)}
        for app in status.applications:
            name = app.removeprefix(self._prefix)
            if name != app:
                found[name] = _placed(status, app, name, urls.get(name, ()))
        return found

    async def deploy(self, name: str, spec: ManagedSpec) -> None:
        model = model_of(name, spec, self._defaults, self._application)
        scale = scale_of(spec, self._defaults)
        await self._blocking(partial(self._run, name, model, scale))

    async def delete(self, name: str) -> None:
        await self._blocking(partial(serve.delete, self._prefix + name, _blocking=True))

    async def wake(self, name: str) -> None:
        handle = serve.get_deployment_handle(name, self._prefix + name)
        await handle.base_url.remote()

    async def _blocking(self, call: Callable[[], T]) -> T:
        """In threads of their own: the loop's few have the registry and the keys to read."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _run(self, name: str, model: Model, scale: Scale) -> None:
        """Does not wait for replicas, for which there may be no room: `placed` tells of them."""
        app = model_deployment(model, scale, self._defaults.share, self._defaults)
        target = serve.RunTarget(app, self._prefix + name, route_prefix=None)
        serve.run_many(
            [target],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )


def _placed(status: ServeStatus, app: str, name: str, urls: tuple[str, ...]) -> Placed:
    """One expert, from what Serve says of its application."""
    details = status.applications[app]
    deployment = details.deployments.get(name)
    if deployment is None:
        return Placed(urls, True, 1, details.message)
    asleep = deployment.status == "HEALTHY" and not deployment.replica_states
    unwell = deployment.status in ("UNHEALTHY", "DEPLOY_FAILED")
    return Placed(urls, True, 0 if asleep else 1, deployment.message if unwell else "")
