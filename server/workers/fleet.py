"""The fleet: the meta workers, the experts' workers, the head, and the snapshot they make.

Owner of what is live. It publishes a new snapshot whenever the state of a worker or of its breaker
changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from experts.manifest import ManagedWorker as ManagedSpec
from experts.manifest import Manifest
from experts.registry import RegisteredExpert
from router.head import Background, Head, HeadRow, build_head, chances, later_chances
from router.meta_client import MetaClient, MetaError, MetaInfo
from router.vocabulary import ExpertVocabulary
from server.errors import UpstreamFailed
from server.relay.circuits import Circuits
from server.relay.snapshot import Endpoint, LiveExpert, SnapshotHolder
from server.settings import Settings
from server.workers.banks import BankMember, Banks
from server.workers.engines import LocalEngines, MakeEngines
from server.workers.metas import Metas
from server.workers.worker import (
    ManagedWorker,
    OnChange,
    Sleeper,
    Worker,
    WorkerFailed,
    WorkerStatus,
)

DRAIN_POLL = 0.1
EXPLAIN_SECONDS = 1.0
"""What a trace may cost."""
DISABLED = "disabled"
"""The state of an expert that a person has switched off; it has no worker."""
FAILING = "failing: it is up, but requests to it fail; it is probed until one succeeds"
UNLEARNED = "starting: it has no row for this meta LLM yet"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """One expert of the fleet. `row` None: no row for the present meta LLM yet."""

    expert: RegisteredExpert
    worker: Worker
    row: HeadRow | None


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
        circuits: Circuits,
        on_status: Callable[[str, WorkerStatus], None] = lambda name, status: None,
        make_engines: MakeEngines = LocalEngines,
    ) -> None:
        self._settings, self._session, self._snapshots = settings, session, snapshots
        self._circuits = circuits
        circuits.subscribe(self._publish)
        circuits.only(lambda endpoint: any(endpoint in e for e in self._endpoints.values()))
        self._on_status = on_status
        self._members: dict[str, Member] = {}
        self._trials: dict[int, HeadRow] = {}
        self._backgrounds: dict[str, bytes] = {}
        self._trial_background: Background | None = None
        self._metas = Metas(session, self._head, self._publish, settings.probe_seconds)
        self._started = False
        """The workers of experts that were restored have been started."""
        self._vocabulary: ExpertVocabulary | None = None
        self._workers: list[Worker] = []
        self._endpoints: dict[Worker, set[Endpoint]] = {}
        """Where workers answered when they were last heard of."""
        self._engines = make_engines(settings, session)
        self._banks = Banks(settings.cache_dir / "banks", self._bank_process)
        self._draining: dict[str, asyncio.Task[None]] = {}
        self._disabled: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking_back: asyncio.Task[None] | None = None

    @property
    def encodings_dir(self) -> Path:
        return self._settings.cache_dir / "encodings"

    # ------------------------------------------------------------ the meta workers

    def start_meta(self, checkpoint: Path | None) -> None:
        """Start, or start to watch, the meta workers. `checkpoint` None: they run elsewhere."""
        self._metas.start()
        self._engines.metas(checkpoint, self._metas, self._meta_changed)

    def ask_before_repair(self, in_step: Callable[[], Awaitable[bool]]) -> None:
        """Let `in_step` decide whether a meta worker with another head than it was given has lost
        it: another server may have given it one."""
        self._metas.ask_before_repair(in_step)

    def meta(self) -> tuple[MetaClient, MetaInfo]:
        """A live meta worker. Raises NotReady."""
        meta = self._metas.one()
        return meta.client, meta.info

    async def wait_meta(self) -> MetaInfo:
        """Wait until a meta worker is live, with the current head."""
        return await self._metas.wait()

    def _meta_changed(self, worker: Worker) -> None:
        self._on_status(worker.name, worker.status)
        self._forgive(worker)
        self._metas.changed(worker)

    def _forgive(self, worker: Worker) -> None:
        """A worker that has come up starts with a closed breaker; where it has left, none is
        probed."""
        now, before = set(worker.endpoints), self._endpoints.pop(worker, set())
        if now:
            self._endpoints[worker] = now
        for endpoint in now ^ before:
            self._circuits.forget(endpoint)

    def _head(self, info: MetaInfo) -> Head:
        self._vocabulary = info.vocabulary
        rows = {
            member.expert.slot: member.row
            for member in self._members.values()
            if member.row is not None and member.expert.meta == info.rows
        }
        background = self._trial_background or self.background(info)
        return build_head(rows | self._trials, info.vocabulary.slots, info.hidden_size, background)

    def background(self, info: MetaInfo) -> Background | None:
        """What stands for "no expert" beside the rows for this meta LLM; None: nothing yet."""
        data = self._backgrounds.get(info.rows)
        return None if data is None else Background.from_bytes(data, info.hidden_size)

    # ------------------------------------------------------------ experts

    def make_worker(self, manifest: Manifest) -> Worker:
        """A worker for an expert, not started yet."""
        spec, name, on_change = manifest.worker, manifest.name, self._expert_changed
        worker: Worker
        if isinstance(spec, ManagedSpec) and self._engines.has_banks and Banks.takes(spec):
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

    async def wake(self, name: str) -> None:
        """Wait until an expert that is asleep answers. Raises UpstreamFailed."""
        member = self._members.get(name)
        if member is None or not isinstance(member.worker, Sleeper):
            return
        try:
            await member.worker.wake()
        except WorkerFailed as error:
            raise UpstreamFailed(str(error)) from None

    async def stop_worker(self, worker: Worker) -> None:
        """Stop a worker that is no longer wanted."""
        await worker.stop()
        self._forgive(worker)
        if worker in self._workers:
            self._workers.remove(worker)

    def restore_backgrounds(self, backgrounds: Mapping[str, bytes]) -> None:
        """Take in what the registry knows of each meta LLM's background."""
        self._backgrounds = dict(backgrounds)

    def restore(self, expert: RegisteredExpert) -> None:
        """Take in an expert that the registry knows from before; its worker waits."""
        if not expert.choices.enabled:
            self._disabled.add(expert.name)
            return
        worker = self.make_worker(expert.manifest)
        self._members[expert.name] = Member(expert, worker, row_of(expert))

    def start_restored(self) -> None:
        """Start the workers of the experts that were restored."""
        self._started = True
        for member in self._members.values():
            member.worker.start()

    @asynccontextmanager
    async def trial(
        self, rows: Mapping[int, HeadRow], background: Background | None = None
    ) -> AsyncIterator[None]:
        """The head with `rows` in their slots, and another background if it is given, for a
        check; taken back if the check fails.

        A slot that is in no snapshot can be chosen by no request. Raises MetaError.
        """
        self._trials.update(rows)
        self._trial_background = background
        try:
            await self._metas.push()
            yield
        except BaseException:
            for slot in rows:
                self._trials.pop(slot, None)
            self._trial_background = None
            self._taking_back = self._spawn(self._push_quietly())
            raise

    def adopt(self, expert: RegisteredExpert, worker: Worker, row: HeadRow) -> None:
        """Let requests choose an expert whose row stood its trial."""
        self._members[expert.name] = Member(expert, worker, row)
        self._trials.pop(expert.slot, None)
        self._publish()

    async def refit(
        self, experts: Sequence[RegisteredExpert], backgrounds: Mapping[str, bytes] | None = None
    ) -> None:
        """Use the new rows of experts of the fleet, and with them other backgrounds if they are
        given. Raises MetaError."""
        if backgrounds is not None:
            self.restore_backgrounds(backgrounds)
        self._trial_background = None
        for expert in experts:
            self._renew(expert)
            self._trials.pop(expert.slot, None)
        await self._metas.push()
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
        if self._take_out(name):
            await self._push_quietly()

    def _take_out(self, name: str) -> bool:
        """Whether it was there."""
        self._disabled.discard(name)
        member = self._members.pop(name, None)
        self._publish()
        if member is None:
            return False
        before = self._draining.get(name)
        self._draining[name] = asyncio.create_task(self._drain(member, before))
        return True

    async def follow(
        self, experts: Sequence[RegisteredExpert], backgrounds: Mapping[str, bytes]
    ) -> None:
        """Have these experts and no others, as another server has left them in the registry."""
        stored = {expert.name: expert for expert in experts}
        known = {name: member.expert for name, member in self._members.items()}
        others = [n for n, e in known.items() if n in stored and e.created != stored[n].created]
        gone = [name for name in (*known, *self._disabled) if name not in stored]
        off = [name for name, e in stored.items() if name in known and not e.choices.enabled]
        for name in (*others, *gone, *off):
            self._take_out(name)
        changed = bool(others or gone or off) or self._backgrounds != backgrounds
        self.restore_backgrounds(backgrounds)
        new: list[Member] = []
        for expert in experts:
            member = self._members.get(expert.name)
            if member is None:
                self._disabled.discard(expert.name)
                self.restore(expert)
                new += [self._members[expert.name]] if expert.choices.enabled else []
            elif member.expert.version != expert.version:
                self._renew(expert)
                changed = True
        if changed or new:
            await self._metas.align()
            self._publish()
        for member in new if self._started else ():
            self._spawn(self._start_when_free(member))

    async def _start_when_free(self, member: Member) -> None:
        name = member.expert.name
        await self.drained(name)
        if self._members.get(name) is member:
            member.worker.start()

    async def drained(self, name: str) -> None:
        """Wait until a worker of that name, whose expert was taken out, has ended: where both
        were in one bank, its end would be taken for that of the new one."""
        draining = self._draining.get(name)
        if draining is not None:
            await asyncio.wait({draining})

    async def _drain(self, member: Member, before: asyncio.Task[None] | None) -> None:
        """`before`: the same for an earlier expert of that name."""
        if before is not None:
            await asyncio.wait({before})
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                while self._in_use(member.expert.slot):  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_POLL)
        except TimeoutError:
            log.warning("expert %s is still in use; stopping its worker", member.expert.name)
        await self.stop_worker(member.worker)
        if self._draining.get(member.expert.name) is asyncio.current_task():
            del self._draining[member.expert.name]

    def slots_held(self) -> set[int]:
        """Slots of experts that are here, and those that a running request could still meet."""
        return {m.expert.slot for m in self._members.values()} | self.slots_in_use()

    def slots_in_use(self) -> set[int]:
        """Slots that a running request could still meet, whoever has them now."""
        slots = self._vocabulary.slots if self._vocabulary else 0
        return {slot for slot in range(slots) if self._in_use(slot)}

    def _in_use(self, slot: int) -> bool:
        vocabulary = self._vocabulary
        return vocabulary is not None and self._snapshots.token_in_use(vocabulary.token_id(slot))

    def _expert_changed(self, worker: Worker) -> None:
        self._on_status(worker.name, worker.status)
        self._forgive(worker)
        self._publish()

    async def explain(
        self, endpoint: Endpoint, key: str, experts: Sequence[LiveExpert]
    ) -> Mapping[str, float]:
        """The probability of each of `experts` in the request that the meta worker at `endpoint`
        explains under `key`: where it was handed over, or else where the answer began."""
        meta = next((m for m in self._metas.usable if m.endpoint == endpoint), None)
        if meta is None:
            return {}
        try:
            async with asyncio.timeout(EXPLAIN_SECONDS):
                decisions = await meta.client.decisions(key)
        except (MetaError, TimeoutError) as error:
            log.warning("a decision cannot be explained: %r", error)
            return {}
        if not decisions:
            return {}
        written = max(decisions)
        found = {}
        for name in (expert.name for expert in experts):
            member = self._members.get(name)
            if member is not None and member.row is not None:
                pending, turn = decisions[written][:, member.expert.slot].tolist()
                found[name] = member.row, pending, turn
        if written:
            return later_chances(found)
        return chances({name: (row, score) for name, (row, score, _) in found.items()})

    # ------------------------------------------------------------ what others see

    def _publish(self) -> None:
        """What requests may use. A worker whose breaker is open is down, and an expert without a
        worker cannot be chosen."""
        metas = self._metas.usable
        closed = tuple(m.endpoint for m in metas if self._circuits.closed(m.endpoint))
        if not closed:
            self._snapshots.publish((), ())
            return
        info = metas[0].info
        live = [
            LiveExpert(member.expert.name, info.vocabulary.token_id(member.expert.slot), replicas)
            for member in self._members.values()
            if member.expert.meta == info.rows and (replicas := self._answering(member.worker))
        ]
        self._snapshots.publish(closed, tuple(live))

    def _answering(self, worker: Worker) -> tuple[Endpoint, ...]:
        return tuple(e for e in worker.endpoints if self._circuits.closed(e))

    def meta_state(self) -> str:
        """The meta workers' state in words."""
        failing = self._metas.usable and not self._snapshots.current.meta
        return FAILING if failing else self._metas.state

    def expert_states(self) -> dict[str, str]:
        """Every expert's state in words."""
        states = {name: self._state_of(member) for name, member in self._members.items()}
        return states | dict.fromkeys(self._disabled, DISABLED)

    def _state_of(self, member: Member) -> str:
        worker, metas = member.worker, self._metas.usable
        if worker.endpoints and not self._answering(worker):
            return FAILING
        if worker.endpoints and metas and member.expert.meta != metas[0].info.rows:
            return UNLEARNED
        return str(worker.status)

    def banks(self) -> dict[str, str]:
        """The bank of each expert that is in one."""
        banks = {name: member.worker.bank for name, member in self._members.items()}
        return {name: bank for name, bank in banks.items() if bank is not None}

    async def close(self) -> None:
        """Stop every worker this fleet started, all at once."""
        for task in [*self._tasks, *self._draining.values()]:
            task.cancel()
        self._banks.closing = True
        await self._engines.close()
        await asyncio.gather(self._metas.close(), self._stop_workers())

    async def _stop_workers(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers), return_exceptions=True)

    async def pushed(self) -> None:
        """Wait until a head that was taken back is what the meta workers have."""
        if self._taking_back is not None:
            await asyncio.wait({self._taking_back})

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _push_quietly(self) -> None:
        """Push the head; a meta worker that is away gets it when it comes back."""
        try:
            await self._metas.push()
        except MetaError as error:
            log.warning("could not push the head: %s", error)
