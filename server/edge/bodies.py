"""Request bodies: how large one may be, and how long it may take to come."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import BodyTimeout, BodyTooLarge
from server.wire import error_response, header, replayed

BODY_SECONDS = 60.0
"""A body that takes longer would keep one of the places in flight for nothing."""
STRANGERS_BYTES = 16 << 10
"""Of a body to a path that asks for no key, from somebody who has none: no such path needs one."""
MOST_DIGITS = 18
"""Of a Content-Length worth reading as a number."""


class BodyLimit:
    """Middleware: reads the whole body, as every route does anyway, but no more than `most` bytes.

    Nothing is parsed before. `state["body_bytes"]` tells its size.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float = BODY_SECONDS) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            stranger = scope.get("state", {}).get("stranger", False)
            most = min(self._most, STRANGERS_BYTES) if stranger else self._most
            body = await self._read(header(scope, b"content-length") or "", receive, most)
        except (BodyTooLarge, BodyTimeout) as error:
            await error_response(error)(scope, receive, send)
            return
        if body is not None:
            scope.setdefault("state", {})["body_bytes"] = len(body)
            await self._app(scope, replayed(body, receive), send)

    async def _read(self, said: str, receive: Receive, most: int) -> bytes | None:
        """The body, or None if the client left. `said`: its length by the header. Raises
        BodyTooLarge and BodyTimeout."""
        if said.isdecimal() and (len(said) > MOST_DIGITS or int(said) > most):
            raise self._too_large(most)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise self._too_large(most)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise BodyTimeout(
                f"the request's body did not come within {self._seconds:.0f} s"
            ) from None

    def _too_large(self, most: int) -> BodyTooLarge:
        raise_it = ", or raise TRIVIUM_MAX_BODY_BYTES on the server" if most == self._most else ""
        return BodyTooLarge(f"the request's body is larger than {most} bytes; send less{raise_it}")
