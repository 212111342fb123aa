"""Which worker stands on which accelerators, and how many experts more would fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from experts.plan.accelerators import Accelerator
from experts.plan.memory import Needs, bank_weight_bytes, together, worker_needs
from experts.plan.models import Model
from experts.plan.quantities import PlanError, show_gib

UTILIZATION = 0.92
"""Of a GPU's memory, what all workers on it may take together; vLLM's own default."""
CPU_UTILIZATION = 0.85
"""Of this machine's memory: the rest is the system's and the orchestrator's."""
LARGEST_GROUP = 8
"""Devices of one tensor-parallel group: as many as a machine has."""

MOST_EXPERTS = 1024
"""That a meta LLM can have tokens for (`slots` in `server/settings.py`)."""


@dataclass(frozen=True)
class Load:
    """What workers must hold: `concurrency` sequences at once in each, of `context` tokens."""

    context: int
    concurrency: int

    def kv_tokens(self, model: Model) -> int:
        return self.concurrency * self.tokens(model)

    def tokens(self, model: Model) -> int:
        """Of one sequence: the context, or as much of it as the model can take."""
        return min(self.context, model.context)


@dataclass(frozen=True)
class Worker:
    """One vLLM: the meta LLM, an expert, or a bank of experts of one shape."""

    name: str
    models: tuple[Model, ...]
    needs: Needs
    devices: int = 1
    """Of its tensor-parallel group."""
    on: tuple[int, ...] = ()
    """The devices it stands on; none where it does not fit."""

    @property
    def model(self) -> Model:
        return self.models[0]

    @property
    def per_device(self) -> int:
        """Bytes on each of its devices."""
        return math.ceil(self.needs.total / self.devices)


@dataclass(frozen=True)
class Placement:
    """Workers on `count` devices, and the bytes left on each."""

    workers: tuple[Worker, ...]
    free: tuple[int, ...]
    usable: int
    """Bytes of each device that workers may take."""

    @property
    def left_out(self) -> tuple[Worker, ...]:
        return tuple(worker for worker in self.workers if not worker.on)


def make_workers(
    meta: Model, experts: Sequence[Model], device: Accelerator, load: Load, shared_table: bool
) -> list[Worker]:
    """The meta LLM, a bank for each shape that several ternary experts have, and one worker for
    each other expert."""
    groups: dict[tuple[int, ...], list[Model]] = {}
    workers = [_worker("meta", [meta], device, load, shared_table)]
    for expert in experts:
        if expert.ternary:
            groups.setdefault(expert.shape(), []).append(expert)
        else:
            workers.append(_worker(expert.name, [expert], device, load, shared_table))
    for number, members in enumerate(groups.values(), start=1):
        name = members[0].name if len(members) == 1 else f"bank-{number}"
        workers.append(_worker(name, members, device, load, shared_table))
    return workers


def _worker(
    name: str, models: list[Model], device: Accelerator, load: Load, shared: bool
) -> Worker:
    """On as few devices as hold it, doubling; on LARGEST_GROUP if none do."""
    tokens = load.kv_tokens(models[0])
    devices = 1
    while True:
        needs = worker_needs(models, device, tokens, load.concurrency, devices, shared)
        worker = Worker(name, tuple(models), needs, devices)
        if device.is_cpu or devices == LARGEST_GROUP or worker.per_device <= usable(device):
            return worker
        devices *= 2


def usable(device: Accelerator) -> int:
    """Bytes of a device that workers may take."""
    return int(device.memory * (CPU_UTILIZATION if device.is_cpu else UTILIZATION))


def place(workers: Sequence[Worker], device: Accelerator, count: int) -> Placement:
    """First fit: the meta LLM, without which nothing is served, then the others, the largest
    first, each on the first devices with room."""
    placed: dict[int, Worker] = {}
    there: list[list[int]] = [[] for _ in range(count)]

    def free(*totals: int) -> int:
        return usable(device) - together(totals, device)

    for i in sorted(range(len(workers)), key=lambda i: (i > 0, -workers[i].needs.total)):
        worker = workers[i]
        room = [at for at in range(count) if free(*there[at], worker.per_device) >= 0]
        on = room[: worker.devices]
        if len(on) == worker.devices:
            for at in on:
                there[at].append(worker.per_device)
            worker = replace(worker, on=tuple(on))
        placed[i] = worker
    ordered = tuple(placed[i] for i in range(len(workers)))
    return Placement(ordered, tuple(free(*totals) for totals in there), usable(device))


def room_for(expert: Model, device: Accelerator, load: Load, placement: Placement) -> int:
    """How many experts like `expert` would fit into what is free, MOST_EXPERTS at most: ternary
    ones into one bank for each device, with one KV cache; others with a worker each, on a single
    device."""
    if expert.ternary:
        room = sum(_bank_room(expert, device, load, free) for free in placement.free)
    else:
        need = worker_needs([expert], device, load.kv_tokens(expert), load.concurrency).total
        room = sum(free // need for free in placement.free)
    return min(room, MOST_EXPERTS)


def _bank_room(expert: Model, device: Accelerator, load: Load, free: int) -> int:
    first = worker_needs([expert], device, load.kv_tokens(expert), load.concurrency).total
    each = bank_weight_bytes([expert], device, shared_table=False)
    return 0 if first > free else 1 + (free - first) // each


def check(placement: Placement, device: Accelerator) -> None:
    """Raises PlanError where the meta LLM itself has no room: nothing could be served."""
    meta = placement.workers[0]
    if not meta.on:
        raise PlanError(
            f"the meta LLM needs {show_gib(meta.needs.total)} GiB on {meta.devices} device(s), and"
            f" {len(placement.free)} × {device.name} with {show_gib(placement.usable)} GiB each"
            " have no room for it: give more with --count, or a shorter --context or a lower"
            " --concurrency"
        )
