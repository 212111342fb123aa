"""Experts come and go: the steps of a registration, and of a removal.

A registration either ends with the expert live and stored, or leaves everything as it was and
says at which step it failed and why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from experts.manifest import Manifest
from experts.registry import NO_CHOICES, Choices, NameInUse, NoFreeSlot, RegisteredExpert, Registry
from router.encode import Encoder
from router.head import HeadRow
from router.learn import Learned, Other, learn_row, learn_together
from router.meta_client import MetaClient, MetaError, MetaInfo
from server.errors import (
    Conflict,
    NotReady,
    StaleVersion,
    TriviumError,
    Unprocessable,
)
from server.relay.upstream import ChatUpstream
from server.workers.fleet import Fleet, row_of
from server.workers.following import Follower
from server.workers.newcomers import (
    Checked,
    ask_first_word,
    asked,
    check_held_out,
    counter_examples,
    prompts,
    ready_endpoints,
    refuse_shared,
)
from server.workers.worker import Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a registration is. `error` is set when it failed at `step`."""

    name: str
    step: str
    state: Literal["running", "done", "failed"] = "running"
    error: str | None = None


class Registrar:
    """Carries out registrations one at a time; the only one that changes the set of experts."""

    def __init__(
        self, registry: Registry, fleet: Fleet, upstream: ChatUpstream, follower: Follower
    ) -> None:
        self._registry, self._fleet, self._upstream = registry, fleet, upstream
        self._follower = follower
        self._progress: dict[str, Progress] = {}
        self._tasks: set[asyncio.Task[RegisteredExpert]] = set()
        self._on_progress: list[Callable[[Progress], None]] = []

    def progress(self, name: str) -> Progress | None:
        """The latest registration of `name` in this process, finished or not."""
        return self._progress.get(name)

    def running(self) -> list[Progress]:
        return [p for p in self._progress.values() if p.state == "running"]

    def subscribe(self, listener: Callable[[Progress], None]) -> None:
        """Call `listener` at every step of every registration."""
        self._on_progress.append(listener)

    def _say(self, progress: Progress) -> None:
        self._progress[progress.name] = progress
        for listener in self._on_progress:
            listener(progress)

    async def start(
        self, manifest: Manifest, choices: Choices = NO_CHOICES
    ) -> asyncio.Task[RegisteredExpert]:
        """Begin a registration; the task ends when the expert is live, or off if that was chosen.

        Raises Conflict at once if the name is taken. The task raises Conflict, Unprocessable or
        NotReady, and then nothing has changed.
        """
        await self._check_unregistered(manifest.name)
        present = self._progress.get(manifest.name)
        if present is not None and present.state == "running":
            raise Conflict(
                f"an expert named {manifest.name!r} is being registered already", param="name"
            )
        steps = _Steps(manifest.name, self._say)
        steps.say("waiting for its turn")
        task = asyncio.create_task(self._carry_out(manifest, choices, steps))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda t: t.cancelled() or t.exception())  # progress tells it
        return task

    async def close(self) -> None:
        """Give up registrations that are under way; they leave nothing behind."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _check_unregistered(self, name: str) -> None:
        if any(expert.name == name for expert in await self._experts()):
            raise Conflict(
                f"an expert named {name!r} is registered; remove it first or choose another name",
                param="name",
            )

    async def _experts(self) -> list[RegisteredExpert]:
        return await asyncio.to_thread(self._registry.experts)

    async def _carry_out(
        self, manifest: Manifest, choices: Choices, steps: _Steps
    ) -> RegisteredExpert:
        try:
            await self._fleet.drained(manifest.name)
            async with self._follower.turn():
                registered = await self._register(manifest, choices, steps)
                self._say(Progress(manifest.name, "live", "done"))
                return registered
        except BaseException as error:
            steps.failed(error)
            raise

    async def _register(
        self, manifest: Manifest, choices: Choices, steps: _Steps
    ) -> RegisteredExpert:
        meta, info = self._fleet.meta()
        await self._check_unregistered(manifest.name)
        slot = await self._free_slot(info)
        refuse_shared(manifest, await self._experts())
        steps.say("starting the worker")
        worker = self._fleet.make_worker(manifest)
        worker.start()
        try:
            learned = await self._while_learning(
                self._learn(meta, info, manifest, steps), self._try_out(worker, manifest, steps)
            )
            steps.say("handing the row to the meta worker")
            async with self._fleet.trial({slot: learned.row}):
                steps.say("checking the held-out examples")
                taken = {expert.slot: expert.name for expert in await self._experts()}
                names = taken | {slot: manifest.name}
                found = await check_held_out(meta, info, names, manifest.name, learned)
                registered = await asyncio.to_thread(
                    self._registry.add,
                    *(manifest, slot, learned.row.to_bytes(), info.rows),
                    *(found.accuracy, found.routes),
                    choices=choices,
                    seen=self._follower.version,
                )
        except BaseException as error:
            await self._fleet.stop_worker(worker)
            if isinstance(error, NameInUse):
                raise Conflict(str(error), param="name") from None
            if isinstance(error, MetaError):
                raise NotReady(str(error)) from None
            raise
        self._fleet.adopt(registered, worker, learned.row)
        if choices != NO_CHOICES:
            await self._fleet.choose(registered)
        return registered

    async def _free_slot(self, info: MetaInfo) -> int:
        """A slot that no expert has and no running request here or elsewhere can meet. Raises
        Conflict."""
        excluded = self._fleet.slots_in_use() | await self._follower.held_elsewhere()
        try:
            return await asyncio.to_thread(
                self._registry.free_slot, info.vocabulary.slots, excluded=excluded
            )
        except NoFreeSlot as error:
            raise Conflict(str(error)) from None

    async def _while_learning(
        self, learning: Coroutine[None, None, Learned], trying: Coroutine[None, None, None]
    ) -> Learned:
        """Learn the row while the worker comes up; if one fails, the other is given up."""
        learned = asyncio.create_task(learning)
        tried = asyncio.create_task(trying)
        try:
            await asyncio.wait({learned, tried}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (tried, learned):
                if task.done():
                    await task
            return learned.result()
        finally:
            for task in (learned, tried):
                task.cancel()
            await asyncio.gather(learned, tried, return_exceptions=True)

    async def _try_out(self, worker: Worker, manifest: Manifest, steps: _Steps) -> None:
        """Wait for the expert's worker, and ask it for a first word. Raises Unprocessable."""
        endpoints = await ready_endpoints(worker)
        steps.say("asking the expert for a first word")
        for endpoint in endpoints:
            await ask_first_word(self._upstream, endpoint, manifest)

    async def _learn(
        self, meta: MetaClient, info: MetaInfo, manifest: Manifest, steps: _Steps
    ) -> Learned:
        encoder = Encoder(meta, info, self._fleet.encodings_dir)
        others = [
            Other(
                prompts(expert.manifest),
                row_of(expert) if expert.meta == info.rows else None,
            )
            for expert in await self._experts()
            if expert.name != manifest.name
        ]
        examples, counter = prompts(manifest), asked(manifest.counter_examples)
        learned = await learn_row(
            encoder,
            manifest.name,
            examples,
            others,
            counter,
            self._fleet.background(info),
            steps.say,
        )
        steps.say("waiting for the worker")
        return learned

    async def relearn(self, name: str) -> None:
        """Fit the row of a stored expert anew if it belongs to another meta LLM, e.g. because that
        was replaced; not if the expert, or the need, is gone by then. Raises NotReady, Conflict."""
        async with self._follower.turn():
            _, info = self._fleet.meta()
            expert = next((e for e in await self._experts() if e.name == name), None)
            if expert is None or not expert.choices.enabled or expert.meta == info.rows:
                return
            relearned = await self._relearn(expert)
            try:
                await self._fleet.refit([relearned])
            except MetaError as error:
                raise NotReady(str(error)) from None

    async def _relearn(self, expert: RegisteredExpert) -> RegisteredExpert:
        meta, info = self._fleet.meta()
        steps = _Steps(expert.name, self._say)
        try:
            learned = await self._learn(meta, info, expert.manifest, steps)
            stored = await asyncio.to_thread(
                self._registry.update_row,
                *(expert.name, learned.row.to_bytes(), info.rows),
                seen=self._follower.version,
            )
        except MetaError as error:
            failure = NotReady(str(error))
            steps.failed(failure)
            raise failure from None
        except BaseException as error:
            steps.failed(error)
            raise
        self._say(Progress(expert.name, "live", "done"))
        return stored

    async def refit(self) -> dict[str, tuple[float | None, float | None]]:
        """Fit all experts' rows together, and use them if every expert passes its check: each
        expert's accuracy on held-out examples before and after. Raises NotReady, Unprocessable,
        and then nothing has changed."""
        async with self._follower.turn():
            meta, info = self._fleet.meta()
            known = (e for e in await self._experts() if e.meta == info.rows)
            experts = {expert.name: expert for expert in known if expert.choices.enabled}
            if len(experts) < 2:
                raise Unprocessable("there are fewer than two experts to be told apart")
            try:
                after = await self._refit(meta, info, experts)
            except MetaError as error:
                raise NotReady(str(error)) from None
        return {name: (expert.accuracy, after[name].accuracy) for name, expert in experts.items()}

    async def _refit(
        self, meta: MetaClient, info: MetaInfo, experts: Mapping[str, RegisteredExpert]
    ) -> dict[str, Checked]:
        together = await learn_together(
            Encoder(meta, info, self._fleet.encodings_dir),
            {name: prompts(expert.manifest) for name, expert in experts.items()},
            {name: HeadRow.from_bytes(expert.row) for name, expert in experts.items()},
            counter_examples(experts),
        )
        learned, background = together.experts, together.background
        names = {expert.slot: name for name, expert in experts.items()}
        rows = {slot: learned[name].row for slot, name in names.items()}
        async with self._fleet.trial(rows, background):
            after = {
                name: await check_held_out(meta, info, names, name, own)
                for name, own in learned.items()
            }
            await asyncio.to_thread(
                self._registry.update_rows,
                info.rows,
                {
                    name: (own.row.to_bytes(), after[name].accuracy, after[name].routes)
                    for name, own in learned.items()
                },
                background.to_bytes(),
                seen=self._follower.version,
            )
            state = await asyncio.to_thread(self._registry.state)
        await self._fleet.refit(
            [expert for expert in state.experts if expert.name in experts], state.backgrounds
        )
        return after

    async def choose(self, name: str, expected: int | None = None, **changes: Any) -> None:
        """Change some of an expert's `Choices`, if it is at the version `expected`. Raises
        UnknownExpert; StaleVersion; NotReady if its row must be learned first and the meta worker
        is away."""
        if changes.get("enabled"):
            await self._fleet.drained(name)  # not with the lock: others need not wait for that
        async with self._follower.turn():
            expert = await asyncio.to_thread(self._registry.get, name)
            choices = replace(expert.choices, **changes)
            _check_version(expert, expected)
            if choices.enabled and not expert.choices.enabled:
                _, info = self._fleet.meta()
                if expert.meta != info.rows:
                    expert = await self._relearn(expert)
            chosen = await asyncio.to_thread(
                self._registry.choose, name, choices, expected=expert.version
            )
            await self._fleet.choose(chosen)

    async def remove(self, name: str, expected: int | None = None) -> None:
        """Remove an expert, if it is at the version `expected`; running answers finish first.
        Raises UnknownExpert, StaleVersion."""
        async with self._follower.turn():
            expert = await asyncio.to_thread(self._registry.get, name)
            _check_version(expert, expected)
            await asyncio.to_thread(self._registry.remove, name, expected=expert.version)
            self._progress.pop(name, None)
            await self._fleet.release(name)


class _Steps:
    """Says the steps of one registration."""

    def __init__(self, name: str, say: Callable[[Progress], None]) -> None:
        self._name, self._say, self._step = name, say, ""

    def say(self, step: str) -> None:
        self._step = step
        self._say(Progress(self._name, step))

    def failed(self, error: BaseException) -> None:
        reason = str(error) if isinstance(error, TriviumError) else type(error).__name__
        if not isinstance(error, TriviumError | asyncio.CancelledError):
            log.error("registration of %s failed at: %s", self._name, self._step, exc_info=error)
        self._say(Progress(self._name, self._step, "failed", reason))


def _check_version(expert: RegisteredExpert, expected: int | None) -> None:
    if expected is not None and expert.version != expected:
        raise StaleVersion(
            f"the expert {expert.name!r} was changed meanwhile: its version is {expert.version},"
            f" not {expected}; look at it again, and repeat the change if it is still wanted"
        )
