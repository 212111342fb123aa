"""Routes whose endpoint takes a JSON body and the request, and nothing else."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.wire import header, read_body, replayed

JSON = "application/json"


class BodyRoute(APIRoute):
    """Validates the bytes of the body at once, and calls the endpoint with `body` and `request`.

    FastAPI describes the route as any other. It is asked for what does not pass here, too: it says
    what is wrong, and takes the little that the strict parser refuses, such as lone surrogates.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        assert self.body_field is not None
        model: Any = self.body_field.field_info.annotation
        assert issubclass(model, BaseModel)
        self._model = model
        self._careful, self.app = self.app, self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if header(scope, b"content-type") != JSON:
            await self._careful(scope, receive, send)
            return
        content = await read_body(receive)
        try:
            body = self._model.model_validate_json(content)
        except ValidationError:
            await self._careful(scope, replayed(content, receive), send)
            return
        request = Request(scope, receive, send)
        response: Response = await self.endpoint(body=body, request=request)
        await response(scope, receive, send)
