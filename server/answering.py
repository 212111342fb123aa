"""From a valid request to the HTTP answer, in one piece or streamed, whatever the API's form."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine
from contextlib import aclosing
from typing import Any

from fastapi import Request
from starlette.responses import Response

from server.errors import BadRequest, NotReady
from server.events import Event
from server.legs import AUTO, GenerationRequest
from server.limits import metered
from server.services import Services, services_of
from server.wire import EventStream, until_disconnect

Fold = Callable[[AsyncIterator[Event]], Coroutine[Any, Any, bytes]]
"""Events to the JSON of the answer in one piece."""
Stream = Callable[[AsyncIterator[Event]], AsyncIterator[bytes]]
"""Events to server-sent events."""


async def respond(
    request: Request, body: GenerationRequest, fold: Fold, stream: Stream
) -> Response:
    """Answer `body` as it asks for. A fault before the first visible event raises its error."""
    services = services_of(request)
    _check_names(body, services)
    events = metered(request.scope, services.dispatcher.run(body))
    if not body.stream:
        async with aclosing(events):
            whole = await until_disconnect(request.receive, fold(events))
        return Response(whole, media_type="application/json")
    try:
        seen = await until_disconnect(request.receive, _first_visible(events))
    except BaseException:
        await events.aclose()
        raise
    return EventStream(stream(_replayed(seen, events)), events)


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


def _check_names(body: GenerationRequest, services: Services) -> None:
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
