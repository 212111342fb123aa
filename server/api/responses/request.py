"""A Responses request as a chat request."""

from __future__ import annotations

from typing import Any

from server.api.chat.schemas import ChatCompletionRequest
from server.api.responses.schemas import (
    FunctionTool,
    InputCall,
    InputCallOutput,
    InputItem,
    InputMessage,
    InputReasoning,
    InputRefusal,
    InputText,
    NamedFunction,
    ResponsesRequest,
    SchemaFormat,
    TextConfig,
)
from server.api.translation import chat_request, function_call, function_tool

LOGPROBS = "message.output_text.logprobs"
"""The entry of `include` that asks for log-probabilities."""
NOT_FORWARDED = frozenset(
    {
        "max_tool_calls",
        "n",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
    }
)
"""Of fields that are not listed: what only OpenAI's own servers act on. An answer is one."""


def to_chat(request: ResponsesRequest) -> ChatCompletionRequest:
    """The chat request that asks for the same. Raises RequestValidationError."""
    logprobs = request.top_logprobs or LOGPROBS in (request.include or ())
    choice = request.tool_choice
    if isinstance(choice, NamedFunction):
        choice = {"type": "function", "function": {"name": choice.name}}  # type: ignore[assignment]
    unknown = {k: v for k, v in (request.model_extra or {}).items() if k not in NOT_FORWARDED}
    return chat_request(
        {
            **unknown,
            "model": request.model,
            "messages": _messages(request),
            "tools": [_tool(tool) for tool in request.tools or ()] or None,
            "tool_choice": choice if request.tools else None,
            "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
            "response_format": _response_format(request.text),
            "reasoning_effort": request.reasoning and request.reasoning.effort,
            "max_completion_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "logprobs": True if logprobs else None,
            "top_logprobs": request.top_logprobs if logprobs else None,
            "truncate_prompt_tokens": -1 if request.truncation == "auto" else None,
            "stream": request.stream,
            "user": request.user,
            "trivium": request.trivium,
        }
    )


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return function_tool(tool.name, tool.description, tool.parameters, strict=tool.strict)


def _response_format(text: TextConfig | None) -> dict[str, Any] | None:
    format = text.format if text else None
    if format is None or format.type == "text":
        return None
    if not isinstance(format, SchemaFormat):
        return {"type": format.type}
    schema = {
        "name": format.name,
        "schema": format.schema_,
        "description": format.description,
        "strict": format.strict,
    }
    return {
        "type": "json_schema",
        "json_schema": {key: value for key, value in schema.items() if value is not None},
    }


# ---------------------------------------------------------------- messages


def _messages(request: ResponsesRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*messages, {"role": "user", "content": request.input}]
    for item in request.input:
        _add(messages, item)
    return messages


def _add(messages: list[dict[str, Any]], item: InputItem) -> None:
    """Add `item`. Reasoning, text and calls of one answer are one turn of the assistant."""
    match item:
        case InputMessage(role="assistant"):
            turn = _assistant_turn(messages)
            if "content" in turn or "tool_calls" in turn:
                messages.append(turn := {"role": "assistant"})
            turn["content"] = _content(item.content)
        case InputMessage():
            messages.append({"role": item.role, "content": _content(item.content)})
        case InputCall():
            call = function_call(item.call_id, item.name, item.arguments)
            _assistant_turn(messages).setdefault("tool_calls", []).append(call)
        case InputCallOutput():
            content = _content(item.output)
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
        case InputReasoning():
            if text := "".join(part.text for part in item.content or ()):
                messages.append({"role": "assistant", "reasoning": text})


def _assistant_turn(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The last message if it is the assistant's, or else a new one."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant"})
    return messages[-1]


def _content(
    content: str | list[InputText] | list[InputText | InputRefusal],
) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    texts = [part.refusal if isinstance(part, InputRefusal) else part.text for part in content]
    if len(texts) == 1:
        return texts[0]
    return [{"type": "text", "text": text} for text in texts]
