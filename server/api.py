"""Routes of the OpenAI-compatible API, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.auth import is_stranger
from server.dispatch import Dispatcher
from server.draining import Drain
from server.encode import Answer, fold, sse
from server.errors import BadRequest, NotReady, UnknownModel
from server.events import Event
from server.legs import AUTO, META
from server.limits import metered
from server.schemas import ChatCompletion, ChatCompletionRequest, Model, ModelList
from server.snapshot import SnapshotHolder
from server.wire import EventStream, json_response, until_disconnect

GRACE_SECONDS = 5.0
"""For a client to take the end of an answer whose time is up."""


@dataclass(frozen=True)
class Health:
    """States in words, e.g. "starting", "live", "failed". `experts`: every registered one."""

    meta: str
    experts: Mapping[str, str] = field(default_factory=dict)


class StatusProvider(Protocol):
    """Who knows how the workers are."""

    def health(self) -> Health: ...


@dataclass(frozen=True)
class Services:
    """What the routes need; `app.state.services` holds it."""

    snapshots: SnapshotHolder
    dispatcher: Dispatcher
    status: StatusProvider
    version: str
    started: int
    """Unix time (s); the models' `created`."""
    drain: Drain = field(default_factory=Drain)


def api_router() -> APIRouter:
    """The routes. The app must put a `Services` into `app.state.services`."""
    router = APIRouter()
    router.add_api_route(
        "/v1/chat/completions",
        chat_completions,
        methods=["POST"],
        response_model=None,
        responses={200: {"model": ChatCompletion, "content": {"text/event-stream": {}}}},
    )
    router.add_api_route("/v1/models", list_models, methods=["GET"])
    router.add_api_route("/v1/models/{model:path}", get_model, methods=["GET"])
    router.add_api_route("/health", health, methods=["GET"], response_model=None)
    router.add_api_route("/version", version, methods=["GET"])
    return router


def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


# ---------------------------------------------------------------- chat


async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
    """An answer that one or several models write, streamed or in one piece."""
    services = _services(request)
    _check_names(body, services)
    events, answer = metered(request.scope, services.dispatcher.run(body)), Answer.to(body)
    if not body.stream:
        async with aclosing(events):
            whole = await until_disconnect(request.receive, fold(events, answer))
        return json_response(whole.model_dump(exclude_unset=True))
    try:
        seen = await until_disconnect(request.receive, _first_visible(events))
    except BaseException:
        await events.aclose()
        raise
    longest = services.dispatcher.longest + GRACE_SECONDS
    return EventStream(sse(_replayed(seen, events), answer), events, longest)


async def _first_visible(events: AsyncGenerator[Event, None]) -> list[Event]:
    """Events up to the first that the client will see. Raises the error of a `Failed`."""
    seen: list[Event] = []
    async for event in events:
        if event.kind == "failed":
            raise event.error
        seen.append(event)
        if event.kind != "routed":
            break
    return seen


async def _replayed(seen: list[Event], events: AsyncGenerator[Event, None]) -> AsyncIterator[Event]:
    for event in seen:
        yield event
    async for event in events:
        yield event


def _check_names(body: ChatCompletionRequest, services: Services) -> None:
    """Names in the request must be known. Raises BadRequest, UnknownModel or NotReady."""
    live = {expert.name for expert in services.snapshots.current.experts}
    registered = services.status.health().experts
    options = body.options
    _check_experts(options.experts or (), {*live, *registered}, "trivium.experts")
    _check_experts(options.bias or (), {*live, *registered}, "trivium.bias")
    name = body.model.removeprefix(f"{AUTO}/")
    if name != body.model and name in registered and name not in live:
        raise NotReady(f"the expert {name!r} is not up: {registered[name]}", param="model")


def _check_experts(names: Collection[str], known: Collection[str], param: str) -> None:
    for name in names:
        if name not in known:
            have = ", ".join(sorted(known)) or "none"
            raise BadRequest(f"no expert is named {name!r}; there are: {have}", param=param)


# ---------------------------------------------------------------- models, health, version


async def list_models(request: Request) -> ModelList:
    """The model that routes by itself, and those that a client may pin."""
    return ModelList(data=list(_models(_services(request)).values()))


async def get_model(model: str, request: Request) -> Model:
    """One model. Its id may hold a slash."""
    found = _models(_services(request)).get(model)
    if found is None:
        raise UnknownModel(f"the model {model!r} does not exist", param="model")
    return found


def _models(services: Services) -> dict[str, Model]:
    snapshot = services.snapshots.current
    served = {AUTO: snapshot.meta, f"{AUTO}/{META}": snapshot.meta}
    served |= {f"{AUTO}/{expert.name}": expert.endpoints for expert in snapshot.experts}
    return {
        name: Model(
            id=name,
            created=services.started,
            max_model_len=endpoints[0].max_model_len if endpoints else None,
        )
        for name, endpoints in served.items()
    }


async def health(request: Request) -> Response:
    """200 as soon as the meta LLM can answer, 503 before and while the server is being stopped;
    and the state of every model, which tells of paths and faults and so is not for strangers."""
    services = _services(request)
    draining, states = services.drain.begun, services.status.health()
    up = bool(services.snapshots.current.meta) and not draining
    status = "draining" if draining else "ok" if up else "starting"
    body: dict[str, Any] = {"status": status}
    if not is_stranger(request.scope):
        body |= {"meta": states.meta, "experts": dict(states.experts)}
    return json_response(body) if up else json_response(body, 503, {"Retry-After": "5"})


async def version(request: Request) -> dict[str, str]:
    """Trivium's version."""
    return {"version": _services(request).version}
