"""The meta LLM's workers: which can be used, and that each has the head before it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import aiohttp

from router.head import Head
from router.meta_client import MetaClient, MetaError, MetaInfo
from server.errors import NotReady
from server.relay.snapshot import Endpoint
from server.workers.worker import Worker

HEAD_RETRY_SECONDS = 1.0
CHECK_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Meta:
    """A meta worker that can be used: its client, and what it said of itself. It has the head."""

    endpoint: Endpoint
    client: MetaClient
    info: MetaInfo


class Metas:
    """Replicas of one meta LLM."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        head: Callable[[MetaInfo], Head],
        on_change: Callable[[], None],
        check_seconds: float,
    ) -> None:
        """`head` makes the current head for a meta LLM; `on_change` is called when another set of
        workers can be used. Every `check_seconds` they are asked which head they have."""
        self._session, self._head, self._on_change = session, head, on_change
        self._check_seconds = check_seconds
        self._workers: list[Worker] = []
        self._usable: dict[Worker, Meta] = {}
        self._up = asyncio.Event()
        self._lock = asyncio.Lock()
        self._greetings: dict[Worker, asyncio.Task[None]] = {}
        self._troubles: dict[Worker, str] = {}
        """Why a worker that is up did not take the head when it was last offered."""
        self._checking: asyncio.Task[None] | None = None
        self._in_step: Callable[[], Awaitable[bool]] = _always

    def ask_before_repair(self, in_step: Callable[[], Awaitable[bool]]) -> None:
        """Ask `in_step` whether `head` gives what all servers' should, before it is given to a
        worker that has another one."""
        self._in_step = in_step

    def start(self) -> None:
        """Begin to look after the meta workers' heads."""
        self._checking = asyncio.create_task(self._check_heads())

    def add(self, worker: Worker) -> None:
        """Start, or start to watch, a meta worker. `changed` must be told of its states."""
        self._workers.append(worker)
        worker.start()

    async def remove(self, worker: Worker) -> None:
        """A meta worker that will not come back."""
        self._workers.remove(worker)
        self._forget(worker)
        await worker.stop()

    @property
    def usable(self) -> tuple[Meta, ...]:
        return tuple(self._usable[w] for w in self._workers if w in self._usable)

    @property
    def state(self) -> str:
        """In words: that of the first worker, if none can be used."""
        if not self._workers:
            return "not started"
        if len(self._usable) == len(self._workers):
            return "live"
        if self._usable:
            return f"live: {len(self._usable)} of {len(self._workers)} replicas"
        first = self._workers[0]
        if first.status.state != "live":
            return str(first.status)
        return f"starting: up, but {self._troubles.get(first, 'it has yet to take the head')}"

    def one(self) -> Meta:
        """A worker that can be used. Raises NotReady."""
        if not self._usable:
            raise NotReady(f"the meta LLM is not up yet ({self.state})")
        return self.usable[0]

    async def wait(self) -> MetaInfo:
        """Wait until one can be used."""
        while not self._usable:
            await self._up.wait()
        return self.usable[0].info

    def changed(self, worker: Worker) -> None:
        """A worker's state changed: it is used only after it has been greeted again."""
        self._forget(worker)
        if worker.endpoints and worker in self._workers:
            self._greetings[worker] = asyncio.create_task(self._greet(worker))

    async def push(self) -> None:
        """Give all workers the current head; one that does not take it is greeted again. Raises
        MetaError if none takes it."""
        async with self._lock:
            usable = dict(self._usable)
            answers = await asyncio.gather(
                *(meta.client.set_head(self._head(meta.info)) for meta in usable.values()),
                return_exceptions=True,
            )
        errors = []
        for (worker, meta), answer in zip(usable.items(), answers, strict=True):
            if isinstance(answer, MetaInfo):
                if worker in self._usable:
                    self._usable[worker] = replace(meta, info=answer)
                continue
            if not isinstance(answer, MetaError):
                raise answer
            errors.append(answer)
            log.warning("the meta worker %s did not take the head: %s", worker.name, answer)
            self.changed(worker)
        if errors and len(errors) == len(usable):
            raise errors[0]

    async def align(self) -> None:
        """Give the current head, which another server may have given them already, to the workers
        that have the one of before. One that has neither is tried out with something by another
        server; if it is still so when that is over, it counts as lost."""
        async with self._lock:
            await asyncio.gather(*(self._align(*item) for item in (*self._usable.items(),)))

    async def _align(self, worker: Worker, meta: Meta) -> None:
        try:
            info = await meta.client.info()
            head = self._head(info)
            if info.head_version == meta.info.head_version:
                info = await meta.client.set_head(head)
            if info.head_version == head.version and worker in self._usable:
                self._usable[worker] = replace(meta, info=info)
        except (MetaError, ValueError, KeyError) as error:
            log.warning("a meta worker did not take the head: %s", error)
            self.changed(worker)

    async def close(self) -> None:
        """Stop the workers that were added, all at once."""
        tasks = [*self._greetings.values(), *([self._checking] if self._checking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(w.stop() for w in self._workers), return_exceptions=True)

    def _forget(self, worker: Worker) -> None:
        if greeting := self._greetings.pop(worker, None):
            greeting.cancel()
        self._troubles.pop(worker, None)
        self._retire(worker)

    def _retire(self, worker: Worker) -> None:
        if self._usable.pop(worker, None) is not None:
            if not self._usable:
                self._up.clear()
            self._on_change()

    async def _greet(self, worker: Worker) -> None:
        """Ask a worker that came up what it is, give it the head, then let it be used."""
        (endpoint,) = worker.endpoints
        client = MetaClient(self._session, endpoint.base_url.removesuffix("/v1"), endpoint.model)
        while worker not in self._usable:
            try:
                info = await client.info()
                async with self._lock:  # two that come up at once are compared, too
                    self._check_same(info)
                    head = self._head(info)
                    if info.head_version != head.version:
                        info = await client.set_head(head)
                    self._usable[worker] = Meta(endpoint, client, info)
                    self._troubles.pop(worker, None)
            except (MetaError, ValueError, KeyError) as error:
                if self._troubles.get(worker) != str(error):  # told once, not every second
                    log.warning("the meta worker is up, but: %s", error)
                self._troubles[worker] = str(error)
                await asyncio.sleep(HEAD_RETRY_SECONDS)
        self._up.set()
        self._on_change()

    async def _check_heads(self) -> None:
        """Find workers that were started anew unseen, between two questions whether they live."""
        while True:
            await asyncio.sleep(self._check_seconds)
            for worker in tuple(self._usable):
                try:
                    await self._check_head(worker)
                except Exception:  # what another server stored may be beyond this one
                    log.exception("the head of the meta worker %s is not checked", worker.name)

    async def _check_head(self, worker: Worker) -> None:
        strange = await self._strange(worker)
        # One that another server has given it may be the right one, in step with that.
        if strange:
            strange = await self._strange(worker) if await self._in_step() else None
        if strange is not None:
            log.warning("the meta worker %s has lost its head", worker.name)
            self.changed(worker)

    async def _strange(self, worker: Worker) -> str | None:
        """The version of a worker's head, if that is neither the one it was last seen with nor the
        current one; "": it was started anew."""
        async with self._lock:
            meta = self._usable.get(worker)
            info = await _asked(meta.client) if meta is not None else None
            if meta is None or info is None or info.head_version == meta.info.head_version:
                return None
            if info.head_version != self._head(info).version:
                return info.head_version
            if worker in self._usable:
                self._usable[worker] = replace(meta, info=info)
            return None

    def _check_same(self, info: MetaInfo) -> None:
        """Raise MetaError if a worker does not serve the same meta LLM as those in use."""
        for meta in self.usable[:1]:
            if (info.rows, info.vocabulary) != (meta.info.rows, meta.info.vocabulary):
                raise MetaError(
                    f"it serves another meta LLM ({info.rows}) than the one in use"
                    f" ({meta.info.rows}); all replicas must serve the same expanded checkpoint"
                )


async def _always() -> bool:
    return True


async def _asked(client: MetaClient) -> MetaInfo | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await client.info()
    except (MetaError, TimeoutError, ValueError, KeyError):
        return None  # whether it lives is found out elsewhere
