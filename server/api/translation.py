"""What the translations of other APIs to chat completions share."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from server.api.chat.schemas import ChatCompletionRequest


def chat_request(fields: dict[str, Any]) -> ChatCompletionRequest:
    """The chat request with those of `fields` that are not None.

    Raises RequestValidationError: fields that only the chat form knows are checked here first.
    """
    try:
        return ChatCompletionRequest.model_validate(
            {name: value for name, value in fields.items() if value is not None}
        )
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise RequestValidationError(faults) from None


def function_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """An entry of an assistant message's `tool_calls`."""
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def function_tool(
    name: str, description: str | None, parameters: dict[str, Any] | None, **more: Any
) -> dict[str, Any]:
    """An entry of `tools`."""
    function = {"name": name, "description": description, "parameters": parameters, **more}
    return {
        "type": "function",
        "function": {key: value for key, value in function.items() if value is not None},
    }
