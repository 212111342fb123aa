"""One line in the log for each request, and word of it to the observer; the outermost middleware
but for request ids."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.trace import Span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.edge.auth import key_of, only_looks, scope_for
from server.seeing.accounts import Account, account
from server.seeing.logs import ACCESS_LOGGER, harmless
from server.seeing.observe import Answered, Observer
from server.seeing.tracing import Tracing

CLIENT_LEFT = 499
"""nginx's number for a client that did not wait for the end of the answer."""

log = logging.getLogger(ACCESS_LOGGER)


class _Answer:
    """What is sent: its status, and whether that was all."""

    def __init__(self, send: Send) -> None:
        self._send, self.status, self.complete = send, 0, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True


class Access:
    """Middleware: opens an account and a span for each request, and says how it ended."""

    def __init__(
        self,
        app: ASGIApp,
        observer: Observer,
        tracing: Tracing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._observer, self._tracing, self._clock = app, observer, tracing, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, answer = self._clock(), _Answer(send)
        with self._tracing.http_request(scope) as span, account() as used:
            try:
                await self._app(scope, receive, answer)
            except Exception:
                answer.status = answer.status or 500
                answer.complete = True
                raise
            finally:
                status = answer.status if answer.complete else CLIENT_LEFT
                self._over(scope, status, used, self._clock() - began, span)

    def _over(self, scope: Scope, status: int, used: Account, seconds: float, span: Span) -> None:
        endpoint = _endpoint(scope)
        self._tracing.http_answered(span, scope, endpoint, status, used)
        self._observer(Answered(endpoint, status, used.model, seconds))
        _log(scope, status, used, seconds)


def _endpoint(scope: Scope) -> str:
    """The path of the route, also where a middleware answered in its place; "" if there is none
    or its path has parameters."""
    if (route := scope.get("route")) is not None:
        return str(route.path)
    known = any(getattr(route, "path", None) == scope["path"] for route in scope["app"].routes)
    return str(scope["path"]) if known else ""


def _log(scope: Scope, status: int, used: Account, seconds: float) -> None:
    """Requests that only look how server and experts are, and the web pages' files, are noise."""
    method, path = scope["method"], scope["path"]
    looks = scope_for(path) in (None, "metrics") or only_looks(method, path)
    level = logging.DEBUG if looks and status < 400 else logging.INFO
    if not log.isEnabledFor(level):
        return
    shown = harmless(path)
    fields = _fields(scope, status, used, seconds)
    told = " ".join(f"{name}={value}" for name, value in fields.items())
    about = {"method": method, "path": shown, "status": status} | fields
    log.log(level, "%s %s %d %s", method, shown, status, told, extra={"fields": about})


def _fields(scope: Scope, status: int, used: Account, seconds: float) -> dict[str, Any]:
    key = key_of(scope)
    fields: dict[str, Any] = {"duration": round(seconds, 4)}
    if key is not None:
        fields["key"] = key.name
    if used.model is not None:
        fields["model"] = harmless(used.model)
        fields["legs"] = ",".join(used.legs)
        fields["prompt_tokens"] = used.usage.prompt_tokens
        fields["completion_tokens"] = used.usage.completion_tokens
    if used.first_token is not None:
        fields["ttft"] = round(used.first_token, 4)
    if used.error is not None:
        fields["error"] = used.error
    if status == CLIENT_LEFT:
        fields["client_left"] = True
    return fields
