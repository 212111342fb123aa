"""Who may call: API keys, checked before anything of a request's body is read.

Plain ASGI, one check a request. A server that asks for no keys answers this machine alone.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.edge.keyring import Keyring
from server.edge.keys import Key
from server.edge.keys import Scope as KeyScope
from server.errors import Forbidden, TriviumError, Unauthorized
from server.settings import is_loopback
from server.wire import error_response, header

OPEN_PATHS = frozenset({"/", "/experts", "/health", "/healthz", "/livez", "/readyz", "/version"})
"""For all: how the server is, and the web pages, which ask for a key themselves."""
OPEN_FOLDERS = ("/web/",)
ADMIN_PATH = "/v1/experts"
METRICS_PATH = "/metrics"
TARGETS_PATH = "/metrics/targets"


def scope_for(path: str) -> KeyScope | None:
    """The scope that a path needs; None: no key at all.

    A path that is not known here needs `admin`, so that a route added later is not open by
    mistake.
    """
    if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
        return None
    if path in (METRICS_PATH, TARGETS_PATH):
        return "metrics"
    return "chat" if path.startswith("/v1/") and not path.startswith(ADMIN_PATH) else "admin"


def only_looks(method: str, path: str) -> bool:
    """Whether a call of the admin API changes nothing: a console makes one every two seconds."""
    return method in ("GET", "HEAD") and path.startswith(ADMIN_PATH)


def key_of(scope: Scope) -> Key | None:
    """The key that a request came with, if the server asks for keys."""
    key = scope.get("state", {}).get("key")
    assert key is None or isinstance(key, Key)
    return key


def is_stranger(scope: Scope) -> bool:
    """Whether a request has come to an open path of a server that asks for keys without one."""
    return bool(scope.get("state", {}).get("stranger"))


class Authentication:
    """Middleware: lets a request pass whose key has the scope that its path needs."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self._app, self._keyring = app, keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            try:
                state["key"] = self._authenticate(scope, state)
            except TriviumError as error:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _authenticate(self, scope: Scope, state: dict[str, Any]) -> Key | None:
        """Raises Unauthorized and Forbidden; the latter after the key is known to the state."""
        secret = secret_in(Headers(scope=scope))
        key = self._keyring.find(secret) if secret else None
        needed = scope_for(scope["path"])
        if needed is None:
            state["stranger"] = key is None
            return key
        if key is None:
            raise Unauthorized(_why_not(secret))
        if needed not in key.scopes:
            state["key"] = key
            raise Forbidden(
                f"the API key {key.name!r} lacks the scope {needed!r}, which {scope['path']}"
                f" needs; make a key with `trivium keys create NAME --scope {needed}`"
            )
        return key


def secret_in(headers: Headers) -> str | None:
    """The secret in `Authorization: Bearer …`, or in `x-api-key`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key") or None


def _why_not(secret: str | None) -> str:
    if secret:
        return "this API key is not known here, has expired, or was revoked"
    return (
        "this server asks for an API key: send `Authorization: Bearer sk-trivium-…`."
        " `trivium keys create NAME` on the server makes one; the trivium command takes it from"
        " TRIVIUM_API_KEY"
    )


class LocalOnly:
    """Middleware of a server on loopback that asks for no keys: keeps web pages out.

    A page that a browser on this machine shows can send requests to loopback. It cannot hide the
    name it reached the server by (`Host`, by which DNS rebinding shows) nor where it comes from
    (`Origin`).
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        """`origins`: pages that may call all the same."""
        self._app, self._origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(header(scope, b"host") or "", header(scope, b"origin"))
            except Forbidden as error:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, host: str, origin: str | None) -> None:
        if host and not _means_loopback(host):
            raise Forbidden(
                f"this server asks for no API key, so it answers to localhost only, not to {host};"
                " TRIVIUM_KEYS=on makes it ask for keys, TRIVIUM_KEYS=off leaves that to a proxy"
            )
        if origin is None or origin in self._origins or origin.partition("://")[2] == host:
            return
        raise Forbidden(
            f"pages of {origin} may not call this server; TRIVIUM_CORS_ORIGINS lists those that may"
        )


@lru_cache(maxsize=256)
def _means_loopback(host: str) -> bool:
    """Whether a Host header, with or without port and brackets, names this machine."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
