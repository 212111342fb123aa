"""Several workers of one model, as one `Worker`."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Sequence
from urllib.parse import urlsplit

from server.relay.snapshot import Endpoint
from server.workers.worker import Worker, WorkerFailed, WorkerStatus

log = logging.getLogger(__name__)


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
        return _together(self._workers)

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


class Moving:
    """The workers at some URLs, as they come and go."""

    def __init__(self, name: str, external: Callable[[str, str], Worker]) -> None:
        """`external` watches one worker, by a name and a URL."""
        self._name, self._external = name, external
        self._workers: dict[str, Worker] = {}
        self._number = 0

    @property
    def workers(self) -> tuple[Worker, ...]:
        return tuple(self._workers.values())

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(e for worker in self.workers for e in worker.endpoints)

    async def follow(self, urls: Collection[str]) -> None:
        """Watch those at `urls`, and nobody else: the others are not asked any more, and answers
        that they write go on."""
        for url in urls:
            if url not in self._workers:
                self._number += 1
                self._workers[url] = self._external(replica_name(self._name, self._number), url)
                self._workers[url].start()
        gone = [url for url in self._workers if url not in urls]
        await asyncio.gather(*(self._workers[url].stop() for url in gone))
        for url in gone:  # only now: who is cancelled while they stop must find them again
            self._workers.pop(url, None)


class AtEachAddress:
    """The servers at all addresses of a URL's host: the pods behind a headless Service of
    Kubernetes."""

    bank = None

    def __init__(
        self, name: str, url: str, external: Callable[[str, str], Worker], every: float
    ) -> None:
        """`external` as in `Moving`; `every` is the pause between two looks at where they are
        (s)."""
        self.name = name
        self._url, self._every = url, every
        self._servers = Moving(name, external)
        self._looked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def status(self) -> WorkerStatus:
        if self._stopped:
            return WorkerStatus("stopped")
        if not self._looked.is_set():
            return WorkerStatus("starting")
        if not self._servers.workers:
            return WorkerStatus("failed", f"the name in {self._url} has no address")
        return _together(self._servers.workers)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._servers.endpoints

    def start(self) -> None:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name=f"addresses of {self.name}")

    async def ready(self) -> tuple[Endpoint, ...]:
        """Wait until one is live, and the others are or are not. Raises WorkerFailed if none is."""
        await self._looked.wait()
        waiting = (worker.ready() for worker in self._servers.workers)
        found = await asyncio.gather(*waiting, return_exceptions=True)
        live = [found for found in found if not isinstance(found, BaseException)]
        if not live:
            raise WorkerFailed(f"worker {self.name!r} {self.status}")
        return tuple(endpoint for endpoints in live for endpoint in endpoints)

    async def stop(self) -> None:
        self._stopped = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._looked.set()  # nobody waits for ever
        await self._servers.follow(())

    async def _look(self) -> None:
        """Follow the addresses, until cancelled. While the name cannot be resolved, or has none,
        what is known is asked on: its own probes say whether it is there."""
        reachable = True
        while True:
            try:
                await self._servers.follow(sorted(await addresses(self._url)))
            except Exception as error:  # no address, no resolver, no name that could have one
                if reachable:
                    log.warning("where the workers of %s are is not known: %r", self.name, error)
                reachable = False
            else:
                reachable = True
            self._looked.set()
            await asyncio.sleep(self._every)


async def addresses(url: str) -> set[str]:
    """The URL once for every address that its host's name has. Raises OSError."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    places = {(str(at[0]), int(at[1])) for *_, at in found}
    hosts = {f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in places}
    return {parts._replace(netloc=host).geturl() for host in hosts}


def _together(workers: Sequence[Worker]) -> WorkerStatus:
    """The status of replicas: live as long as one is."""
    up = sum(worker.status.state == "live" for worker in workers)
    if up == len(workers):
        return WorkerStatus("live")
    down = next(w.status for w in workers if w.status.state != "live")
    if not up:
        return down
    return WorkerStatus("live", f"{up} of {len(workers)} replicas; {down}")
