"""Several workers of one model, as one `Worker`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from server.relay.snapshot import Endpoint
from server.workers.worker import Worker, WorkerStatus


def replica_name(name: str, number: int) -> str:
    """The name of the worker that is replica `number` (from 1) of `name`; no model has a dot."""
    return name if number == 1 else f"{name}.{number}"


class Replicas:
    """The replicas of one model. It is live as long as one of them is."""

    bank = None

    def __init__(self, name: str, workers: Sequence[Worker]) -> None:
        self.name = name
        self._workers = tuple(workers)

    @property
    def status(self) -> WorkerStatus:
        up = sum(worker.status.state == "live" for worker in self._workers)
        if up == len(self._workers):
            return WorkerStatus("live")
        down = next(w.status for w in self._workers if w.status.state != "live")
        if not up:
            return down
        return WorkerStatus("live", f"{up} of {len(self._workers)} replicas; {down}")

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(endpoint for worker in self._workers for endpoint in worker.endpoints)

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    async def ready(self) -> tuple[Endpoint, ...]:
        """Wait until all are live. Raises WorkerFailed for the first that does not come up."""
        found = await asyncio.gather(*(worker.ready() for worker in self._workers))
        return tuple(endpoint for endpoints in found for endpoint in endpoints)

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))
