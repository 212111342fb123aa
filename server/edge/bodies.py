"""Request bodies: how large one may be, and how long it may take to come."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import BodyTimeout, BodyTooLarge
from server.wire import error_response, header, replayed

BODY_SECONDS = 60.0
"""A body that takes longer would keep one of the places in flight for nothing."""
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
            body = await self._read(header(scope, b"content-length") or "", receive)
        except (BodyTooLarge, BodyTimeout) as error:
            await error_response(error)(scope, receive, send)
            return
        if body is not None:
            scope.setdefault("state", {})["body_bytes"] = len(body)
            await self._app(scope, replayed(body, receive), send)

    async def _read(self, said: str, receive: Receive) -> bytes | None:
        """The body, or None if the client left. `said`: its length by the header. Raises
        BodyTooLarge and BodyTimeout."""
        if said.isdecimal() and (len(said) > MOST_DIGITS or int(said) > self._most):
            raise self._too_large()
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._most:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise BodyTimeout(
                f"the request's body did not come within {self._seconds:.0f} s"
            ) from None

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"the request's body is larger than {self._most} bytes; send less, or raise"
            " TRIVIUM_MAX_BODY_BYTES on the server"
        )
