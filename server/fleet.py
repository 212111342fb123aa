"""The fleet: the meta worker, the experts' workers, the head, and the snapshot they make.

Owner of what is live. It publishes a new snapshot whenever a worker's state changes, and sees to
it that the meta worker has the right head before it is used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from experts.manifest import ManagedWorker as ManagedSpec
from experts.manifest import Manifest
from experts.registry import RegisteredExpert
from router.head import Head, HeadRow, build_head, chances
from router.meta_client import MetaClient, MetaError, MetaInfo
from router.vocabulary import ExpertVocabulary
from server.banks import BankMember, Banks
from server.engines import Engines
from server.errors import NotReady
from server.settings import Settings
from server.snapshot import LiveExpert, SnapshotHolder
from server.workers import ManagedWorker, OnChange, Worker, WorkerStatus

DRAIN_SECONDS = 600.0
DRAIN_POLL = 0.1
HEAD_RETRY_SECONDS = 1.0
DISABLED = "disabled"
"""The state of an expert that a person has switched off; it has no worker."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """One expert of the fleet. `row` None: no row for the present meta LLM yet."""

    expert: RegisteredExpert
    worker: Worker
    row: HeadRow | None


@dataclass(frozen=True)
class Meta:
    """The meta worker's client and what it said of itself; it has the current head."""

    client: MetaClient
    info: MetaInfo


def row_of(expert: RegisteredExpert) -> HeadRow:
    """The row of a stored expert, with the threshold that was chosen for it."""
    return HeadRow.from_bytes(expert.row).asking(expert.choices.threshold)


class Fleet:
    """Workers, head and snapshot. Changes are made by the Registrar and by workers' states."""

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        snapshots: SnapshotHolder,
        on_status: Callable[[str, WorkerStatus], None] = lambda name, status: None,
    ) -> None:
        self._settings, self._session, self._snapshots = settings, session, snapshots
        self._on_status = on_status
        self._members: dict[str, Member] = {}
        self._trials: dict[int, HeadRow] = {}
        self._meta: Meta | None = None
        self._meta_worker: Worker | None = None
        self._vocabulary: ExpertVocabulary | None = None
        self._workers: list[Worker] = []
        self._engines = Engines(settings, session)
        self._banks = Banks(settings.cache_dir / "banks", self._bank_process)
        self._meta_up = asyncio.Event()
        self._head_lock = asyncio.Lock()
        self._draining: dict[str, asyncio.Task[None]] = {}
        self._disabled: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def encodings_dir(self) -> Path:
        return self._settings.cache_dir / "encodings"

    # ------------------------------------------------------------ the meta worker

    def start_meta(self, checkpoint: Path | None) -> None:
        """Start, or start to watch, the meta worker. `checkpoint` None: it runs elsewhere."""
        worker = self._engines.meta(checkpoint, self._meta_changed)
        self._meta_worker = worker
        self._workers.append(worker)
        worker.start()

    def meta(self) -> tuple[MetaClient, MetaInfo]:
        """The live meta worker. Raises NotReady."""
        if self._meta is None:
            status = self._meta_worker.status if self._meta_worker else "not started"
            raise NotReady(f"the meta LLM is not up yet ({status})")
        return self._meta.client, self._meta.info

    async def wait_meta(self) -> MetaInfo:
        """Wait until the meta worker is live, with the current head."""
        while self._meta is None:
            await self._meta_up.wait()
        return self._meta.info

    def _meta_changed(self, worker: Worker) -> None:
        self._on_status("meta", worker.status)
        self._meta = None
        self._meta_up.clear()
        self._publish()
        if worker.endpoint is not None:
            self._spawn(self._greet_meta(worker))

    async def _greet_meta(self, worker: Worker) -> None:
        """Ask a meta worker that came up what it is, give it the head, then let it be used."""
        while (endpoint := worker.endpoint) is not None and self._meta is None:
            base = endpoint.base_url.removesuffix("/v1")
            client = MetaClient(self._session, base, endpoint.model)
            try:
                info = await client.info()
                async with self._head_lock:
                    info = await client.set_head(self._head(info))
            except (MetaError, ValueError, KeyError) as error:
                log.warning("the meta worker is up, but: %s", error)
                await asyncio.sleep(HEAD_RETRY_SECONDS)
                continue
            if worker.endpoint == endpoint:
                self._meta, self._vocabulary = Meta(client, info), info.vocabulary
                self._meta_up.set()
                self._publish()

    def _head(self, info: MetaInfo) -> Head:
        rows = {
            member.expert.slot: member.row
            for member in self._members.values()
            if member.row is not None and member.expert.meta == info.rows
        }
        return build_head(rows | self._trials, info.vocabulary.slots, info.hidden_size)

    async def _push_head(self) -> None:
        """Give the meta worker the current head. Raises MetaError."""
        async with self._head_lock:
            if self._meta is not None:
                info = await self._meta.client.set_head(self._head(self._meta.info))
                self._meta = replace(self._meta, info=info)

    # ------------------------------------------------------------ experts

    def make_worker(self, manifest: Manifest) -> Worker:
        """A worker for an expert, not started yet."""
        spec, name, on_change = manifest.worker, manifest.name, self._expert_changed
        worker: Worker
        if not isinstance(spec, ManagedSpec):
            base = str(spec.url).rstrip("/")
            worker = self._engines.external(name, base, spec.model, on_change)
        elif Banks.takes(spec):
            worker = BankMember(name, spec, self._banks, self._session, on_change)
        else:
            worker = self._engines.expert(name, spec, on_change)
        self._workers.append(worker)
        return worker

    def _bank_process(self, name: str, base: Path, on_change: OnChange) -> ManagedWorker:
        def tell(worker: Worker) -> None:
            self._on_status(worker.name, worker.status)
            on_change(worker)

        return self._engines.bank(name, base, tell)

    async def stop_worker(self, worker: Worker) -> None:
        """Stop a worker that is no longer wanted."""
        await worker.stop()
        if worker in self._workers:
            self._workers.remove(worker)

    def restore(self, expert: RegisteredExpert) -> None:
        """Take in an expert that the registry knows from before; its worker waits."""
        if not expert.choices.enabled:
            self._disabled.add(expert.name)
            return
        worker = self.make_worker(expert.manifest)
        self._members[expert.name] = Member(expert, worker, row_of(expert))

    def start_restored(self) -> None:
        """Start the workers of the experts that were restored."""
        for member in self._members.values():
            member.worker.start()

    @asynccontextmanager
    async def trial(self, rows: Mapping[int, HeadRow]) -> AsyncIterator[None]:
        """The head with `rows` in their slots, for a check; taken back if the check fails.

        A slot that is in no snapshot can be chosen by no request. Raises MetaError.
        """
        self._trials.update(rows)
        try:
            await self._push_head()
            yield
        except BaseException:
            for slot in rows:
                self._trials.pop(slot, None)
            self._spawn(self._push_quietly())
            raise

    def adopt(self, expert: RegisteredExpert, worker: Worker, row: HeadRow) -> None:
        """Let requests choose an expert whose row stood its trial."""
        self._members[expert.name] = Member(expert, worker, row)
        self._trials.pop(expert.slot, None)
        self._publish()

    async def refit(self, *experts: RegisteredExpert) -> None:
        """Use the new rows of experts of the fleet. Raises MetaError."""
        for expert in experts:
            self._renew(expert)
            self._trials.pop(expert.slot, None)
        await self._push_head()
        self._publish()

    def _renew(self, expert: RegisteredExpert) -> None:
        member = self._members[expert.name]
        self._members[expert.name] = replace(member, expert=expert, row=row_of(expert))

    async def choose(self, expert: RegisteredExpert) -> None:
        """Do what a person decided about an expert: one that is disabled has no worker, and is
        called again once that is up."""
        name, running = expert.name, expert.name in self._members
        if not expert.choices.enabled:
            await self.release(name)
            self._disabled.add(name)
        elif running:
            self._renew(expert)
            await self._push_quietly()
        else:
            await self.drained(name)
            self._disabled.discard(name)
            self.restore(expert)
            await self._push_quietly()
            self._members[name].worker.start()

    async def release(self, name: str) -> None:
        """Take an expert out. Its worker ends once no running answer can need it."""
        self._disabled.discard(name)
        member = self._members.pop(name, None)
        self._publish()
        if member is None:
            return
        await self._push_quietly()
        self._draining[name] = asyncio.create_task(self._drain(member))

    async def drained(self, name: str) -> None:
        """Wait until a worker of that name, whose expert was taken out, has ended: where both
        were in one bank, its end would be taken for that of the new one."""
        draining = self._draining.get(name)
        if draining is not None:
            await asyncio.wait({draining})

    async def _drain(self, member: Member) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._in_use(member.expert.slot):  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_POLL)
        except TimeoutError:
            log.warning("expert %s is still in use; stopping its worker", member.expert.name)
        await self.stop_worker(member.worker)
        self._draining.pop(member.expert.name, None)

    def slots_in_use(self) -> set[int]:
        """Slots that a running request could still meet, whoever has them now."""
        slots = self._vocabulary.slots if self._vocabulary else 0
        return {slot for slot in range(slots) if self._in_use(slot)}

    def _in_use(self, slot: int) -> bool:
        vocabulary = self._vocabulary
        return vocabulary is not None and self._snapshots.token_in_use(vocabulary.token_id(slot))

    def _expert_changed(self, worker: Worker) -> None:
        self._on_status(worker.name, worker.status)
        self._publish()

    async def explain(self, key: str, experts: Sequence[LiveExpert]) -> Mapping[str, float]:
        """The probability of each of `experts` in the request that the meta worker explains under
        `key`: where it was handed over, or else where the answer began."""
        meta = self._meta
        if meta is None:
            return {}
        try:
            decisions = await meta.client.decisions(key)
        except MetaError as error:
            log.warning("a decision cannot be explained: %s", error)
            return {}
        if not decisions:
            return {}
        written = max(decisions)
        found = {}
        for name in (expert.name for expert in experts):
            member = self._members.get(name)
            if member is not None and member.row is not None:
                found[name] = member.row, float(decisions[written][member.expert.slot])
        return chances(found, "turn" if written else "start")

    # ------------------------------------------------------------ what others see

    def _publish(self) -> None:
        meta, worker = self._meta, self._meta_worker
        if meta is None or worker is None or worker.endpoint is None:
            self._snapshots.publish(None, ())
            return
        live = [
            LiveExpert(
                member.expert.name,
                meta.info.vocabulary.token_id(member.expert.slot),
                member.worker.endpoint,
            )
            for member in self._members.values()
            if member.worker.endpoint is not None and member.expert.meta == meta.info.rows
        ]
        self._snapshots.publish(worker.endpoint, tuple(live))

    def meta_state(self) -> str:
        """The meta worker's state in words."""
        return str(self._meta_worker.status) if self._meta_worker else "not started"

    def expert_states(self) -> dict[str, str]:
        """Every expert's state in words."""
        states = {name: str(member.worker.status) for name, member in self._members.items()}
        return states | dict.fromkeys(self._disabled, DISABLED)

    def banks(self) -> dict[str, str]:
        """The bank of each expert that is in one."""
        banks = {name: member.worker.bank for name, member in self._members.items()}
        return {name: bank for name, bank in banks.items() if bank is not None}

    async def close(self) -> None:
        """Stop every worker this fleet started, all at once."""
        for task in [*self._tasks, *self._draining.values()]:
            task.cancel()
        self._banks.closing = True
        await asyncio.gather(*(worker.stop() for worker in self._workers), return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _push_quietly(self) -> None:
        """Push the head; a meta worker that is away gets it when it comes back."""
        try:
            await self._push_head()
        except MetaError as error:
            log.warning("could not push the head: %s", error)
