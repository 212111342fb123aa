"""The OpenAPI document: complete, in our forms, and true of the running server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.api.openapi import REASONS
from server.app import create_app
from server.errors import HTTP_FORMS
from server.settings import Settings
from tests.fuzzing import fuzz, site_to_fuzz


def document(folder: Path, **settings: Any) -> dict[str, Any]:
    return create_app(Settings(state_dir=folder, **settings), None).openapi()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


async def test_it_is_true(tmp_path: Path) -> None:
    """Every operation at the borders of its schema: statuses, bodies, events, headers."""
    async with site_to_fuzz(tmp_path) as site:
        url = str(site.http.base_url).rstrip("/")
        found = await fuzz(url, phases="coverage", folder=tmp_path)
    assert found.status == 0, found.output
    assert found.cases > 1000


def test_every_status_of_ours_has_a_reason() -> None:
    assert {form.status for form in HTTP_FORMS.values()} - {None} == set(REASONS)


def test_operations(tmp_path: Path) -> None:
    found = operations(document(tmp_path))
    assert set(found) == {
        "post /v1/chat/completions",
        "post /v1/completions",
        "post /v1/responses",
        "post /v1/messages",
        "post /v1/messages/count_tokens",
        "get /v1/models",
        "get /v1/models/{model}",
        "get /health",
        "get /livez",
        "get /version",
        "get /v1/experts",
        "post /v1/experts",
        "post /v1/experts/refit",
        "get /v1/experts/{name}",
        "patch /v1/experts/{name}",
        "delete /v1/experts/{name}",
        "get /metrics",
        "get /metrics/targets",
    }
    ids = [operation["operationId"] for operation in found.values()]
    assert len(set(ids)) == len(ids)
    assert all(name.isidentifier() for name in ids)


def test_errors_have_the_bodies_that_clients_get(tmp_path: Path) -> None:
    spec = document(tmp_path)
    assert "HTTPValidationError" not in spec["components"]["schemas"]
    for name, operation in operations(spec).items():
        form = "MessagesError" if "/v1/messages" in name else "ErrorBody"
        for status, response in operation["responses"].items():
            if int(status) >= 400 and not name.endswith("/health"):
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": f"#/components/schemas/{form}"}, name


def test_references_lead_somewhere(tmp_path: Path) -> None:
    spec = document(tmp_path)
    schemas = {f"#/components/schemas/{name}" for name in spec["components"]["schemas"]}

    def references(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(references, node))
        if not isinstance(node, dict):
            return set()
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))

    assert references(spec) <= schemas


@pytest.mark.parametrize(("keys", "anonymous"), [("on", False), ("auto", True)])
def test_security(tmp_path: Path, keys: str, anonymous: bool) -> None:
    found = operations(document(tmp_path, keys=keys))
    for name, operation in found.items():
        if name in ("get /health", "get /livez", "get /version"):
            assert "security" not in operation
        else:
            assert ({} in operation["security"]) is anonymous
            assert {"bearer": []} in operation["security"]
