"""Errors of `/v1/messages` in Anthropic's form, wherever in the server they arise."""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.messages.objects import ErrorObject, MessagesError

PATH = "/v1/messages"
REQUEST_ID = "request-id"
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(openai: dict[str, Any], status: int, request_id: str | None) -> MessagesError:
    """Anthropic's body for OpenAI's."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    message = openai["error"]["message"]
    return MessagesError(error=ErrorObject(type=kind, message=message), request_id=request_id)


class AnthropicErrors:
    """Middleware, around all others: rewrites the errors that leave the server on this path, and
    names each answer's request.

    What is no JSON (the refusal of a CORS preflight) stays as it is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def translate(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                _name_request(MutableHeaders(scope=message))
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _send_error(start, body, send)

        await self._app(scope, receive, translate)


def _name_request(headers: MutableHeaders) -> None:
    """Anthropic's clients read the request's id under a name of its own."""
    if request_id := headers.get("x-request-id"):
        headers[REQUEST_ID] = request_id


async def _send_error(start: Message, body: bytes, send: Send) -> None:
    headers = MutableHeaders(scope=start)
    if headers.get("content-type", "").startswith("application/json"):
        request_id = headers.get("x-request-id")
        error = anthropic_error(json.loads(body), start["status"], request_id)
        body = error.model_dump_json().encode()
        headers["content-length"] = str(len(body))
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
