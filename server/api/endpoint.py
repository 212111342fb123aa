"""Routes whose endpoint takes a JSON body and the request, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

JSON = "application/json"


class BodyRoute(APIRoute):
    """Validates the bytes of the body at once, and calls the endpoint with `body` and `request`.

    FastAPI describes the route as any other. It is asked for what does not pass here, too: it says
    what is wrong, and takes the little that the strict parser refuses, such as lone surrogates.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer, careful = self.endpoint, super().get_route_handler()
        assert self.body_field is not None
        model: Any = self.body_field.field_info.annotation
        assert issubclass(model, BaseModel)

        async def handle(request: Request) -> Response:
            if request.headers.get("content-type") != JSON:
                return await careful(request)
            try:
                body = model.model_validate_json(await request.body())
            except ValidationError:
                return await careful(request)
            response: Response = await answer(body=body, request=request)
            return response

        return handle
