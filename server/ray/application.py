"""The Serve application: orchestrators, the meta LLM, and the directory; experts join later.

`serve run server.ray.application:build`, or `serve deploy deploy/ray/serve.yaml`.
"""

from __future__ import annotations

import json
from typing import Any

import aiohttp
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray import serve
from ray.serve.config import AutoscalingConfig

from server.app import create_app
from server.ray.directory import NAME, Directory
from server.ray.engines import ClusterEngines
from server.ray.model_server import Model
from server.ray.placement import MANY, Defaults, ServeCluster, model_deployment
from server.ray.scaling import Scale, Share
from server.seeing.logs import log_to_stderr
from server.settings import Settings

SHARED = "TRIVIUM_DATABASE_URL"


class Orchestrators(BaseModel):
    """How many orchestrators: several need a registry that they share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    target_requests: float = Field(default=64.0, gt=0)
    share: Share = Share(num_cpus=1.0)


class MetaModel(BaseModel):
    """The meta LLM's replicas."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Scale = Scale()
    share: Share = Share()


class ExpertModels(BaseModel):
    """Experts' replicas; their manifests say how many there may be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Scale = Scale()
    share: Share = Share()


class Arguments(BaseModel):
    """The application's arguments, as `serve.yaml` gives them.

    Attributes:
        device: what nodes have, by the planner's name; "cpu", "H100", "L4", ….
        context, concurrency: what each replica's KV cache should hold; the planner turns it into
            a share of a GPU.
        environment: TRIVIUM_… settings, for every process.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "trivium"
    orchestrators: Orchestrators = Orchestrators()
    meta: MetaModel = MetaModel()
    experts: ExpertModels = ExpertModels()
    device: str = "cpu"
    context: int = Field(default=4096, ge=1)
    concurrency: int = Field(default=32, ge=1)
    environment: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _share_a_registry(self) -> Arguments:
        if self.orchestrators.max_replicas > 1 and SHARED not in self.environment:
            raise ValueError(
                f"{self.orchestrators.max_replicas} orchestrators need a registry that they share:"
                f" give {SHARED} in `environment`, or leave max_replicas at 1"
            )
        if self.orchestrators.min_replicas > self.orchestrators.max_replicas:
            raise ValueError("orchestrators: min_replicas is more than max_replicas")
        return self

    def settings(self) -> Settings:
        """An orchestrator's. Other machines reach it, so it asks for keys unless told not to."""
        given: dict[str, Any] = {
            key.removeprefix("TRIVIUM_").lower(): json.loads(value) if value[:1] == "[" else value
            for key, value in self.environment.items()
            if key.startswith("TRIVIUM_")
        }
        return Settings(**{"host": "0.0.0.0", **given})

    def defaults(self, settings: Settings) -> Defaults:
        """For every model's deployment."""
        secret = {SHARED, "TRIVIUM_API_KEY"}
        return Defaults(
            scale=self.experts.scale,
            share=self.experts.share,
            device=self.device,
            context=self.context,
            concurrency=self.concurrency,
            drain_seconds=settings.drain_seconds,
            meta=settings.meta,
            environment={k: v for k, v in self.environment.items() if k not in secret},
        )


def build(arguments: Arguments) -> serve.Application:
    """The application: `serve run server.ray.application:build`."""
    settings = arguments.settings()
    defaults = arguments.defaults(settings)

    def orchestrator() -> FastAPI:
        return make_orchestrator(arguments)

    directory = (
        serve.deployment(name=NAME, ray_actor_options={"num_cpus": 0})(Directory)
        .options(version="1", _internal=True)  # kept when the application is deployed again
        .bind()
    )
    model = Model("meta", None, application=arguments.name, drain_seconds=settings.drain_seconds)
    meta = model_deployment(model, arguments.meta.scale, arguments.meta.share, defaults)
    wanted = arguments.orchestrators
    ingress = serve.deployment(
        name="Orchestrator",
        autoscaling_config=AutoscalingConfig(
            min_replicas=wanted.min_replicas,
            max_replicas=wanted.max_replicas,
            target_ongoing_requests=wanted.target_requests,
        ),
        ray_actor_options={
            **wanted.share.options(Share()),
            "runtime_env": {"env_vars": dict(arguments.environment)},
        },
        max_ongoing_requests=settings.max_in_flight + MANY,  # the 429 is the orchestrator's own
        graceful_shutdown_timeout_s=settings.drain_seconds + 10,
    )(serve.ingress(orchestrator)())
    return ingress.bind(directory, meta)


def make_orchestrator(arguments: Arguments) -> FastAPI:
    """What runs in a replica of the orchestrator."""
    settings = arguments.settings()
    log_to_stderr(settings.log_format)

    def engines(settings: Settings, session: aiohttp.ClientSession) -> ClusterEngines:
        cluster = ServeCluster(arguments.defaults(settings), arguments.name)
        return ClusterEngines(settings, session, cluster)

    return create_app(settings, None, make_engines=engines)
