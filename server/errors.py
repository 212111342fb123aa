"""The exception tree of the orchestrator, and its one table to HTTP status and OpenAI error body.

TriviumError
├── BadRequest            400  the client asked for something that makes no sense
├── NotFound              404
│   └── UnknownModel      404  model_not_found
├── Conflict              409
├── Unprocessable         422
├── NotReady              503  with Retry-After
└── UpstreamError              a worker did not give a whole answer
    ├── UpstreamFailed    502  unreachable, 5xx, broken or cut stream
    ├── UpstreamTimeout   504
    └── UpstreamRejected  4xx  the worker's own status and message
        └── ContextTooLong  400  context_length_exceeded
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class TriviumError(Exception):
    """Something went wrong in a way we can explain. `param` names the request field at fault."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class BadRequest(TriviumError):
    """The request makes no sense as it stands."""


class NotFound(TriviumError):
    """What the request names does not exist."""


class UnknownModel(NotFound):
    """No model of that name is served."""


class Conflict(TriviumError):
    """The request contradicts the present state, e.g. a name that is taken."""


class Unprocessable(TriviumError):
    """Well-formed, but it cannot be carried out, e.g. an expert that fails its probe."""


class NotReady(TriviumError):
    """The model is not up yet; the client should try again in `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int = 5, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after


class UpstreamError(TriviumError):
    """A worker did not give a whole answer."""


class UpstreamFailed(UpstreamError):
    """A worker is unreachable, answered 5xx, or its stream was broken or cut."""


class UpstreamTimeout(UpstreamError):
    """A worker was silent for too long."""


class UpstreamRejected(UpstreamError):
    """A worker refused the request with a 4xx `status`; the message is the worker's, cleaned."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.status = status


class ContextTooLong(UpstreamRejected):
    """Prompt and requested tokens do not fit the worker's context length."""


@dataclass(frozen=True)
class HttpForm:
    """How an exception looks on the wire. `status` None: the exception carries its own."""

    status: int | None
    type: str
    code: str | None


HTTP_FORMS: Mapping[type[Exception], HttpForm] = {
    BadRequest: HttpForm(400, "invalid_request_error", None),
    NotFound: HttpForm(404, "invalid_request_error", "not_found"),
    UnknownModel: HttpForm(404, "invalid_request_error", "model_not_found"),
    Conflict: HttpForm(409, "invalid_request_error", "conflict"),
    Unprocessable: HttpForm(422, "invalid_request_error", "unprocessable"),
    NotReady: HttpForm(503, "service_unavailable_error", "not_ready"),
    UpstreamFailed: HttpForm(502, "upstream_error", "upstream_failed"),
    UpstreamTimeout: HttpForm(504, "upstream_error", "upstream_timeout"),
    UpstreamRejected: HttpForm(None, "invalid_request_error", None),
    ContextTooLong: HttpForm(400, "invalid_request_error", "context_length_exceeded"),
    Exception: HttpForm(500, "server_error", "internal_error"),
}


def http_form(error: Exception) -> HttpForm:
    """The row of the table for `error`: its class's own, or the nearest ancestor's."""
    return next(HTTP_FORMS[kind] for kind in type(error).__mro__ if kind in HTTP_FORMS)


def http_status(error: Exception) -> int:
    """HTTP status for `error`."""
    status = http_form(error).status
    if status is not None:
        return status
    assert isinstance(error, UpstreamRejected)
    return error.status


def http_headers(error: Exception) -> dict[str, str]:
    """Headers that go with `error`."""
    return {"Retry-After": str(error.retry_after)} if isinstance(error, NotReady) else {}


def error_body(error: Exception) -> dict[str, Any]:
    """OpenAI's error body for `error`. An exception that is not ours tells nothing of itself."""
    form = http_form(error)
    if isinstance(error, TriviumError):
        return openai_error(error.message, type=form.type, param=error.param, code=form.code)
    message = "internal error; the server's log has the details"
    return openai_error(message, type=form.type, code=form.code)


def openai_error(
    message: str, *, type: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The bare form of OpenAI's error body."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}
