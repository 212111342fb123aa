"""From a valid request to the HTTP answer, in one piece or streamed, whatever the API's form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import aclosing
from typing import Any

from fastapi import Request
from starlette.responses import Response

from server.errors import BadRequest, NotReady
from server.relay.events import Batch
from server.relay.legs import AUTO, GenerationRequest
from server.services import Services, services_of
from server.wire import EventStream, while_connected

GRACE_SECONDS = 5.0
"""For a client to take the end of an answer whose time is up."""

Fold = Callable[[AsyncIterator[Batch]], Coroutine[Any, Any, bytes]]
"""Events to the JSON of the answer in one piece."""
Stream = Callable[[AsyncIterator[Batch]], AsyncIterator[bytes]]
"""Events to server-sent events."""


async def respond(
    request: Request, body: GenerationRequest, fold: Fold, stream: Stream
) -> Response:
    """Answer `body` as it asks for. A fault before the first visible event raises its error."""
    services = services_of(request)
    _check_names(body, services)
    batches = services.dispatcher.run(body)
    if body.stream:
        longest = services.dispatcher.longest + GRACE_SECONDS
        return EventStream(stream(batches), batches, longest)
    async with aclosing(batches), while_connected(request.receive):
        whole = await fold(batches)
    return Response(whole, media_type="application/json")


def _check_names(body: GenerationRequest, services: Services) -> None:
    """Names in the request must be known. Raises BadRequest, UnknownModel or NotReady."""
    if body.model == AUTO and not body.options.experts and not body.options.bias:
        return
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
