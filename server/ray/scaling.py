"""How many replicas of a model Ray keeps, and what each asks of its node."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from experts.plan.accelerators import Accelerator
from experts.plan.memory import worker_needs
from experts.plan.models import Model as Shape
from experts.plan.placement import Load, usable
from server.ray.model_server import REQUESTS
from server.workers.vllm_command import CPU_KV_CACHE_GIB

GIB = 1 << 30


class Scale(BaseModel):
    """How a model is scaled.

    Attributes:
        min_replicas: always there. 0 for none while nobody asks.
        target_requests: running and waiting requests that one replica should have.
        upscale_delay_s, downscale_delay_s: how long more or fewer must be wanted.
        idle_seconds: how long nobody may have asked when the last replica goes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=1, ge=1)
    target_requests: float = Field(default=8.0, gt=0)
    upscale_delay_s: float = Field(default=10.0, ge=0)
    downscale_delay_s: float = Field(default=300.0, ge=0)
    idle_seconds: float = Field(default=600.0, ge=0)
    look_back_s: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _fewest_is_not_most(self) -> Scale:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas is {self.min_replicas}, more than max_replicas, {self.max_replicas}"
            )
        return self

    def autoscaling(self) -> AutoscalingConfig:
        """Serve's own, going by what replicas' vLLM have to do: requests do not pass Serve."""
        return AutoscalingConfig(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            initial_replicas=max(1, self.min_replicas),
            target_ongoing_requests=self.target_requests,
            upscale_delay_s=self.upscale_delay_s,
            downscale_delay_s=self.downscale_delay_s,
            downscale_to_zero_delay_s=self.idle_seconds,
            look_back_period_s=self.look_back_s,
            metrics_interval_s=min(2.0, self.look_back_s),
            policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
                policy_function=f"{__name__}:by_requests"
            ),
        )


def by_requests(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Replicas so that each has `target_requests` of the requests that all have. Serve applies
    delays and bounds, and starts the first replica itself when one is asked for."""
    found = (context.aggregated_metrics or {}).get(REQUESTS)
    if context.current_num_replicas == 0 or not found:
        return context.target_num_replicas, {}
    config = context.config
    assert config is not None
    # A call that wakes the model counts until it is answered.
    requests = sum(found.values()) + context.total_num_requests
    return math.ceil(requests / config.get_target_ongoing_requests()), {}


class Share(BaseModel):
    """What a replica asks of its node. Left out, the planner says what it needs.

    Attributes:
        num_cpus: cores; vLLM's threads on a CPU.
        num_gpus: whole GPUs, or a part of one.
        memory: bytes of the machine's memory.
        resources: Ray's custom resources.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_cpus: float = Field(default=1.0, ge=0)
    num_gpus: float | None = Field(default=None, ge=0)
    memory: float | None = Field(default=None, ge=0)
    resources: dict[str, float] = Field(default_factory=dict)

    def options(self, needs: Share) -> dict[str, Any]:
        """Ray's actor options; `needs` fills what is left out."""
        options: dict[str, Any] = {"num_cpus": self.num_cpus, "resources": self.resources}
        gpus = needs.num_gpus if self.num_gpus is None else self.num_gpus
        if gpus:
            options["num_gpus"] = gpus
        memory = needs.memory if self.memory is None else self.memory
        if memory:
            options["memory"] = memory
        return options


def needs(model: Shape, device: Accelerator, load: Load) -> Share:
    """What the planner says a replica takes on `device`.

    On GPUs a share of one, in whole hundredths, or as many whole ones as hold it. On a CPU bytes
    of memory.
    """
    if device.is_cpu:
        found = worker_needs([model], device, 0, load.concurrency)
        return Share(memory=found.total + CPU_KV_CACHE_GIB * GIB)
    devices = 1
    while True:
        tokens = load.kv_tokens(model)
        found = worker_needs([model], device, tokens, load.concurrency, devices)
        share = found.total / devices / usable(device)
        if share <= 1:
            break
        devices *= 2
    return Share(num_gpus=math.ceil(100 * share) / 100 if devices == 1 else devices)
