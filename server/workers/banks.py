"""Banks: vLLM processes that serve many ternary experts each, and the experts in them.

An expert in a bank is a `Worker` like any other. Banks come into being with their first expert
and end with their last.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import aiohttp

from experts.errors import ExpertsError
from experts.manifest import ManagedWorker as ManagedSpec
from experts.vllm_plugin.bank.adapters import (
    BankError,
    check_suitable,
    make_base,
    why_unlike,
)
from server.relay.snapshot import Endpoint
from server.workers.worker import (
    ManagedWorker,
    OnChange,
    Watched,
    Worker,
    WorkerFailed,
    WorkerStatus,
)

ADD_SECONDS = 300.0
AGAIN_SECONDS = 1.0

log = logging.getLogger(__name__)

MakeProcess = Callable[[str, Path, OnChange], ManagedWorker]
"""The worker of a bank, from its name, its base folder, and whom to tell of its state."""


class Bank:
    """One engine and the experts that want to be in it."""

    def __init__(self, name: str, base: Path, make_process: MakeProcess) -> None:
        self.name, self.base = name, base
        self.members: set[str] = set()
        self._changed = asyncio.Event()
        self.process = make_process(name, base, self._note)
        self.process.start()

    async def lost(self, endpoint: Endpoint) -> WorkerStatus:
        """Wait until the engine no longer is what answers at `endpoint`."""
        while self.process.endpoint == endpoint:
            self._changed.clear()
            await self._changed.wait()
        return self.process.status

    def _note(self, _: Worker) -> None:
        self._changed.set()


class Banks:
    """The banks of this machine. Finds each expert one that it fits, or makes one."""

    def __init__(self, folder: Path, make_process: MakeProcess) -> None:
        """`folder` is for what banks are started with; it can be made again."""
        self._folder, self._make_process = folder, make_process
        self.closing = False
        """Everything is being stopped: experts need not be taken out of banks first."""
        self._banks: dict[str, Bank] = {}
        self._lock = asyncio.Lock()

    @staticmethod
    def takes(spec: ManagedSpec) -> bool:
        """Whether an expert goes into a bank: if its manifest names one; if it says nothing, when
        it is ternary and of an architecture that banks serve."""
        if spec.bank is not None:
            return spec.bank is not False
        return not spec.args and spec.replicas == 1 and _suitable(spec.checkpoint)

    async def join(self, member: str, spec: ManagedSpec) -> Bank:
        """The bank for an expert. Raises BankError if it cannot be in the one that it names."""
        async with self._lock:
            bank = await asyncio.to_thread(self._find, spec)
            while bank is not None and self._banks.get(bank.name) is not bank:
                bank = await asyncio.to_thread(self._find, spec)  # its last member left meanwhile
            if bank is None:
                name = spec.bank or self._free_name(spec)
                base = self._folder / name
                await asyncio.to_thread(_make_base_anew, spec.checkpoint, base)
                bank = self._banks[name] = Bank(name, base, self._make_process)
            bank.members.add(member)
            return bank

    async def leave(self, member: str, bank: Bank) -> None:
        """An expert is no longer in a bank. The last one's going ends the bank."""
        bank.members.discard(member)
        if not bank.members and self._banks.get(bank.name) is bank:
            del self._banks[bank.name]
            await bank.process.stop()

    def _find(self, spec: ManagedSpec) -> Bank | None:
        """The bank of that name, or one that fits. One whose engine was given up is none: those
        that are still in it have failed, and another may take its name."""
        for name, bank in tuple(self._banks.items()):
            if bank.process.status.state == "failed":
                self._banks.pop(name, None)
        if spec.bank:
            named = self._banks.get(spec.bank)
            reason = named and why_unlike(spec.checkpoint, named.base)
            if reason:
                raise BankError(
                    f"{spec.checkpoint} cannot be in the bank {spec.bank!r}: {reason}; leave"
                    " `bank` out, and a bank that fits is found or made"
                )
            return named
        banks = tuple(self._banks.values())
        return next((b for b in banks if why_unlike(spec.checkpoint, b.base) is None), None)

    def _free_name(self, spec: ManagedSpec) -> str:
        """After the architecture, of those that banks serve: a name becomes a folder, so it must
        not be what a checkpoint says of itself."""
        kind = check_suitable(spec.checkpoint).removesuffix("ForCausalLM").lower()
        names = (f"{kind}-{n}" if n > 1 else kind for n in range(1, len(self._banks) + 2))
        return next(name for name in names if name not in self._banks)


class BankMember(Watched):
    """An expert in a bank: added when the bank is up, and again whenever the bank comes back."""

    def __init__(
        self,
        name: str,
        spec: ManagedSpec,
        banks: Banks,
        session: aiohttp.ClientSession,
        on_change: OnChange,
    ) -> None:
        super().__init__(name, on_change)
        self._spec, self._banks, self._session = spec, banks, session
        self._bank: Bank | None = None
        self._asked: Endpoint | None = None
        """The engine that was asked last to take the expert in: it may have done so."""

    @property
    def bank(self) -> str | None:
        return self._bank.name if self._bank else None

    async def stop(self) -> None:
        await self._cancel()
        bank, engine = self._bank, self._asked
        if bank is None:
            return
        alone = len(bank.members) <= 1 or self._banks.closing
        if engine is not None and engine == bank.process.endpoint and not alone:
            await self._remove(engine)
        self._bank = None
        await self._banks.leave(self.name, bank)

    async def _run(self) -> None:
        try:
            self._bank = await self._banks.join(self.name, self._spec)
            while True:
                (engine,) = await self._bank.process.ready()
                if await self._add(engine):
                    self._set(WorkerStatus("live"), replace(engine, model=self.name))
                    status = await self._bank.lost(engine)
                    self._set(WorkerStatus("restarting", f"its bank is {status}"))
                else:
                    await asyncio.sleep(AGAIN_SECONDS)
        except (ExpertsError, WorkerFailed) as error:
            self._set(WorkerStatus("failed", str(error)))

    async def _add(self, engine: Endpoint) -> bool:
        """Add the expert to the engine; False if that is to be tried again. Raises BankError if
        it cannot be there."""
        body, self._asked = {"name": self.name, "checkpoint": str(self._spec.checkpoint)}, engine
        timeout = aiohttp.ClientTimeout(total=ADD_SECONDS)
        try:
            async with self._session.post(_url(engine), json=body, timeout=timeout) as response:
                answer = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("bank %s: %r", self.bank, error)
            return False
        if response.status == 201:
            return True
        if response.status == 409:  # left from before, maybe with other weights
            await self._remove(engine)
            return False
        if response.status == 422:
            raise BankError(str(json.loads(answer)["error"]["message"]))
        log.warning("bank %s answered %d: %s", self.bank, response.status, answer[:300])
        return False

    async def _remove(self, engine: Endpoint) -> None:
        """Take the expert out of the engine; one that is gone has nothing to be taken from."""
        timeout = aiohttp.ClientTimeout(total=ADD_SECONDS)
        try:
            url = f"{_url(engine)}/{quote(self.name)}"
            async with self._session.delete(url, timeout=timeout) as response:
                if response.status not in (204, 404):
                    log.warning("bank %s kept %s: %d", self.bank, self.name, response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("bank %s: %r", self.bank, error)


def _url(engine: Endpoint) -> str:
    return f"{engine.base_url.removesuffix('/v1')}/trivium/bank"


def _suitable(checkpoint: Path) -> bool:
    """Whether some bank could serve a checkpoint. A broken one gets a worker of its own, which
    says what is wrong with it."""
    try:
        check_suitable(checkpoint)
    except BankError:
        return False
    return True


def _make_base_anew(checkpoint: Path, base: Path) -> None:
    shutil.rmtree(base, ignore_errors=True)
    make_base(checkpoint, base)
