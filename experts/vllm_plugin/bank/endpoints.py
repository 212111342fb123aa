"""HTTP routes of a bank, beside vLLM's own: experts come, go, and are looked at.

Touches of vLLM's server (0.32) that it does not promise to plugins, all here: its table of
adapters (`entrypoints/openai/models/serving.py`), the requests under way
(`v1/engine/output_processor.py`), and the engine client's `generate`.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest

from experts.errors import ExpertsError
from experts.vllm_plugin.bank.adapters import make_adapter, why_unlike
from experts.vllm_plugin.bank.metrics import BankMetrics, RefreshMetrics
from experts.vllm_plugin.bank.worker import BankStatus

NAME = "trivium_bank"
LINK = "expert"
"""In an adapter's folder: the checkpoint."""
POLL_SECONDS = 0.02
DRAIN_SECONDS = 0.2


class NewExpert(BaseModel):
    """An expert to add: clients will call it by `name`; `checkpoint` is a folder here."""

    name: str
    checkpoint: Path


class ExpertView(BaseModel):
    """An expert in the bank."""

    name: str
    checkpoint: Path
    bytes: int
    """Host memory that it takes, without what it has in common with others."""
    resident: bool
    """Whether the next step can compute with it as it is."""
    tokens: int
    """Computed for it so far: of prompts (unless cached) and of answers."""


class BankView(BaseModel):
    """The bank: how many experts can be resident, how often one was brought in, how long that
    took in all (s)."""

    places: int
    swaps: int
    swap_seconds: float
    experts: list[ExpertView]


class Refused(Exception):
    """What was asked cannot be; `status` is HTTP's, the message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BankAdmin:
    """Changes the set of experts of one running engine; one change at a time."""

    def __init__(self, engine: Any, models: Any, base: Path) -> None:
        self._engine, self._models, self._base = engine, models, base
        self._lock = asyncio.Lock()
        self._adapters = base / "adapters"
        shutil.rmtree(self._adapters, ignore_errors=True)  # an earlier process's

    async def add(self, name: str, checkpoint: Path) -> ExpertView:
        """Add an expert. Raises Refused: 409 if the name is in use, 422 if it cannot be in this
        bank; then nothing has changed."""
        async with self._lock:
            if name in self._models.lora_requests or self._models.is_base_model(name):
                raise Refused(409, f"the name {name!r} is in use in this bank")
            try:
                reason = await asyncio.to_thread(why_unlike, checkpoint, self._base)
            except ExpertsError as error:
                raise Refused(422, str(error)) from None
            if reason is not None:
                raise Refused(422, f"{checkpoint} cannot be in this bank: {reason}")
            folder, link = self._make_adapter(checkpoint)
            try:
                size = await self._read(link)
                await self._load(name, folder)
            except BaseException as error:
                await self._engine.collective_rpc("trivium_bank_forget", args=(str(link),))
                shutil.rmtree(folder, ignore_errors=True)
                if isinstance(error, Refused):
                    said = str(error).replace(str(link), str(checkpoint))
                    raise Refused(error.status, said) from None
                raise
        return _added(name, checkpoint, size)

    async def remove(self, name: str) -> None:
        """Remove an expert when the requests that use it have ended. Raises Refused (404)."""
        async with self._lock:
            request = self._models.lora_requests.get(name)
            if request is None:
                raise Refused(404, f"no expert named {name!r} is in this bank")
            await self._models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))
            await self._drained(name)
            await self._engine.remove_lora(request.lora_int_id)
            shutil.rmtree(request.lora_path, ignore_errors=True)

    async def view(self) -> BankView:
        """The bank as its first rank sees it; all ranks hold the same experts."""
        ranks: list[BankStatus] = await self._engine.collective_rpc("trivium_bank_status")
        status = ranks[0]
        experts = []
        for name, request in self._models.lora_requests.items():
            link = Path(request.lora_path) / LINK
            own = status["experts"].get(str(link))
            if own is not None:
                experts.append(ExpertView(name=name, checkpoint=link.resolve(), **own))
        return BankView(
            places=status["places"],
            swaps=status["swaps"],
            swap_seconds=status["swap_seconds"],
            experts=experts,
        )

    def _make_adapter(self, checkpoint: Path) -> tuple[Path, Path]:
        """The folder of an expert's adapter, and the path that its checkpoint has there: one of
        its own for each registration, since what a folder holds may change."""
        folder = self._adapters / uuid.uuid4().hex
        link = folder / LINK
        make_adapter(link, folder)
        link.symlink_to(checkpoint.resolve())
        return folder, link

    async def _drained(self, name: str) -> None:
        """Wait until no request uses an expert that new requests cannot name."""
        under_way = self._engine.output_processor.request_states
        await asyncio.sleep(DRAIN_SECONDS)  # for requests that have just been taken in
        while any(state.lora_name == name for state in list(under_way.values())):  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_SECONDS)

    async def _read(self, link: Path) -> int:
        """Have every rank read the expert, while steps go on; the bytes that it takes in one.
        Raises Refused."""
        await self._engine.collective_rpc("trivium_bank_read", args=(str(link),))
        while True:
            outcomes = await self._engine.collective_rpc("trivium_bank_outcome", args=(str(link),))
            for _, error, _ in outcomes:
                if error:
                    raise Refused(422, error)
            if all(done for done, _, _ in outcomes):
                return int(outcomes[0][2])
            await asyncio.sleep(POLL_SECONDS)

    async def _load(self, name: str, folder: Path) -> None:
        """Let requests name the expert. Raises Refused."""
        request = LoadLoRAAdapterRequest(lora_name=name, lora_path=str(folder))
        answer = await self._models.load_lora_adapter(request)
        if isinstance(answer, ErrorResponse):
            raise Refused(422, answer.error.message)


class BankEndpoints:
    """The `vllm.endpoint_plugins` entry point; load it by naming it in `VLLM_PLUGINS`."""

    name = NAME
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.add_api_route("/trivium/bank", show, methods=["GET"])
        app.add_api_route("/trivium/bank", add, methods=["POST"], response_model=None)
        app.add_api_route("/trivium/bank/{name}", remove, methods=["DELETE"], response_model=None)
        app.add_middleware(RefreshMetrics, state=app.state)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        state.trivium_bank = BankAdmin(engine_client, state.openai_serving_models, Path(args.model))
        state.trivium_bank_metrics = BankMetrics()
        engine_client.generate = _experts_only(engine_client.generate)


def _experts_only(generate: Callable[..., Any]) -> Callable[..., Any]:
    """`generate`, but not for the base: there is no model in it."""

    def checked(*args: Any, lora_request: Any = None, **named: Any) -> Any:
        if lora_request is None:
            raise ValueError("a bank serves experts only: give the name of one as `model`")
        return generate(*args, lora_request=lora_request, **named)

    return checked


def _admin(request: Request) -> BankAdmin:
    admin = request.app.state.trivium_bank
    assert isinstance(admin, BankAdmin)
    return admin


async def show(request: Request) -> BankView:
    """What is in the bank."""
    return await _admin(request).view()


async def add(expert: NewExpert, request: Request) -> Response:
    """Add an expert, and answer when requests can name it."""
    admin = _admin(request)
    try:
        added = await admin.add(expert.name, expert.checkpoint)
    except Refused as error:
        return _refusal(error)
    return JSONResponse(added.model_dump(mode="json"), status_code=201)


async def remove(name: str, request: Request) -> Response:
    """Remove an expert. Answers that it is writing are finished first."""
    try:
        await _admin(request).remove(name)
    except Refused as error:
        return _refusal(error)
    return Response(status_code=204)


def _added(name: str, checkpoint: Path, size: int) -> ExpertView:
    """An expert that has written nothing yet."""
    own = checkpoint.resolve()
    return ExpertView(name=name, checkpoint=own, bytes=size, resident=False, tokens=0)


def _refusal(error: Refused) -> JSONResponse:
    """An answer of our own: vLLM's handler takes paths out of messages, and here they tell which
    file is at fault."""
    return JSONResponse({"error": {"message": str(error)}}, status_code=error.status)
