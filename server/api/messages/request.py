"""A Messages request as a chat request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from server.api.chat.schemas import ChatCompletionRequest
from server.api.messages.schemas import (
    ContentBlock,
    CountRequest,
    MessagesRequest,
    OutputConfig,
    TextBlock,
    ThinkingBlock,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
    TurnMessage,
)
from server.api.translation import chat_request, function_call, function_tool

NOT_FORWARDED = frozenset(
    {"betas", "cache_control", "container", "context_management", "inference_geo", "mcp_servers"}
    | {"n", "service_tier", "speed"}
)
"""Of fields that are not listed: what only Anthropic's own servers act on. An answer is one."""
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
BILLING = "x-anthropic-billing-header"
"""How a system text begins that Claude Code writes for Anthropic's servers. A part of it is another
in each request, so that no prefix cache would know the prompt again."""


def to_chat(request: MessagesRequest) -> ChatCompletionRequest:
    """The chat request that asks for the same. Raises RequestValidationError."""
    unknown = {k: v for k, v in (request.model_extra or {}).items() if k not in NOT_FORWARDED}
    return chat_request(
        {
            **unknown,
            **_prompt(request),
            "max_completion_tokens": request.max_tokens,
            "stop": request.stop_sequences or None,
            "stream": request.stream,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "user": request.metadata and request.metadata.user_id,
            "trivium": request.trivium,
        }
    )


def to_count(request: CountRequest) -> ChatCompletionRequest:
    """A chat request with the same prompt. Raises RequestValidationError."""
    return chat_request(_prompt(request))


def _prompt(request: CountRequest) -> dict[str, Any]:
    unfinished = request.messages[-1].role == "assistant"
    return {
        **_tools(request),
        **_output(request.output_config),
        "model": request.model,
        "messages": _messages(request),
        "continue_final_message": True if unfinished else None,
        "add_generation_prompt": False if unfinished else None,
        **({"reasoning_effort": "none"} if _thinks_not(request) else {}),
    }


def _thinks_not(request: CountRequest) -> bool:
    return request.thinking is not None and request.thinking.type == "disabled"


def _tools(request: CountRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    tools = [function_tool(t.name, t.description, t.input_schema) for t in request.tools]
    choice = request.tool_choice
    if choice is None:
        return {"tools": tools}
    if isinstance(choice, ToolChoice):
        chosen: Any = {"type": "function", "function": {"name": choice.name}}
    else:
        chosen = CHOICES[choice.type]
    one = choice.disable_parallel_tool_use
    return {
        "tools": tools,
        "tool_choice": chosen,
        "parallel_tool_calls": None if one is None else not one,
    }


def _output(config: OutputConfig | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if config and config.effort:
        fields["reasoning_effort"] = config.effort
    if config and config.format:
        schema = {"name": "answer", "schema": config.format.schema_}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields


# ---------------------------------------------------------------- messages


def _messages(request: CountRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if system := _for_models(request.system or ""):
        messages.append({"role": "system", "content": system})
    for turn in request.messages:
        messages.extend(_turn(turn))
    return messages


def _for_models(system: str | Sequence[TextBlock]) -> str:
    """A system prompt without what is not for models."""
    blocks = [TextBlock(type="text", text=system)] if isinstance(system, str) else system
    return _joined([block for block in blocks if not block.text.startswith(BILLING)])


def _turn(turn: TurnMessage) -> Iterator[dict[str, Any]]:
    if turn.role == "system":
        texts = turn.content if isinstance(turn.content, str) else _texts(turn.content)
        if said := _for_models(texts):
            yield {"role": "system", "content": said}
    elif isinstance(turn.content, str):
        yield {"role": turn.role, "content": turn.content}
    elif turn.role == "assistant":
        yield _assistant(turn.content)
    else:
        yield from _said(turn.role, turn.content)


def _assistant(blocks: Sequence[ContentBlock]) -> dict[str, Any]:
    """Thinking, text and calls are one message."""
    message: dict[str, Any] = {"role": "assistant"}
    if thinking := "".join(b.thinking for b in blocks if isinstance(b, ThinkingBlock)):
        message["reasoning"] = thinking
    if texts := _texts(blocks):
        message["content"] = "".join(block.text for block in texts)
    if calls := [b for b in blocks if isinstance(b, ToolUseBlock)]:
        message["tool_calls"] = [
            function_call(call.id, call.name, json.dumps(call.input, ensure_ascii=False))
            for call in calls
        ]
    return message


def _said(role: str, blocks: Sequence[ContentBlock]) -> Iterator[dict[str, Any]]:
    """Results of tools are messages of their own; the texts between them are one each."""
    texts: list[str] = []
    for block in blocks:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ToolResultBlock):
            if texts:
                yield _text_message(role, texts)
                texts = []
            content = _joined(block.content or "")
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
    if texts:
        yield _text_message(role, texts)


def _text_message(role: str, texts: Sequence[str]) -> dict[str, Any]:
    if len(texts) == 1:
        return {"role": role, "content": texts[0]}
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def _texts(blocks: Sequence[ContentBlock]) -> list[TextBlock]:
    return [block for block in blocks if isinstance(block, TextBlock)]


def _joined(content: str | Sequence[TextBlock]) -> str:
    """Blocks as one text, each on lines of its own."""
    return content if isinstance(content, str) else "\n".join(block.text for block in content)
