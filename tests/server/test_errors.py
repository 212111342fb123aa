"""Every exception has a status and an OpenAI body."""

from __future__ import annotations

import pytest

from server import errors
from server.errors import HTTP_FORMS, TriviumError, error_body, http_headers, http_status


def leaves(kind: type[TriviumError] = TriviumError) -> list[type[TriviumError]]:
    below = kind.__subclasses__()
    return [kind] if not below else [leaf for sub in below for leaf in leaves(sub)]


@pytest.mark.parametrize("kind", leaves())
def test_every_error_has_a_row_and_stands_in_the_tree(kind: type[TriviumError]) -> None:
    assert any(base in HTTP_FORMS for base in kind.__mro__ if base is not Exception)
    assert kind.__name__ in (errors.__doc__ or "")
    assert f" {http_status(kind('x'))}" in next(
        line for line in (errors.__doc__ or "").splitlines() if f"─ {kind.__name__} " in line
    )


def test_body_and_headers() -> None:
    assert error_body(errors.BadRequest("no", param="n")) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": None}
    }
    assert http_headers(errors.NotReady("soon", retry_after=7)) == {"Retry-After": "7"}
    assert http_status(errors.UpstreamRejected("x", status=429)) == 429
    assert http_status(KeyError("x")) == 500
    assert "secret" not in str(error_body(KeyError("secret")))
