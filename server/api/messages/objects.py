"""Wire models of answers of `POST /v1/messages`: the message, its blocks, its events, errors.

Checked in the tests against `anthropic.types`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from server.api.chat.schemas import Trace

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]

# ---------------------------------------------------------------- the message


class AnswerText(BaseModel):
    type: Literal["text"] = "text"
    text: str = ""


class AnswerThinking(BaseModel):
    """What a reasoning model thought, where its worker tells; nobody signs it."""

    type: Literal["thinking"] = "thinking"
    thinking: str = ""
    signature: str = ""


class AnswerToolUse(BaseModel):
    """A call that the client is asked to carry out."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any] = {}


AnswerBlock = AnswerText | AnswerThinking | AnswerToolUse


class MessageUsage(BaseModel):
    """Prompt tokens that a cache held are not among the `input_tokens`."""

    input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int = 0


class TokenCount(BaseModel):
    """How long a prompt is."""

    input_tokens: int


class AnswerMessage(BaseModel):
    """The answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[AnswerBlock] = []
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage = MessageUsage()
    trivium: Trace | None = Field(default=None, exclude_if=lambda trace: trace is None)
    """Only if the request asked for a trace."""


# ---------------------------------------------------------------- events


class MessageStart(BaseModel):
    type: Literal["message_start"] = "message_start"
    message: AnswerMessage


class BlockStart(BaseModel):
    type: Literal["content_block_start"] = "content_block_start"
    index: int
    content_block: AnswerBlock


class TextPiece(BaseModel):
    type: Literal["text_delta"] = "text_delta"
    text: str


class ThinkingPiece(BaseModel):
    type: Literal["thinking_delta"] = "thinking_delta"
    thinking: str


class InputPiece(BaseModel):
    type: Literal["input_json_delta"] = "input_json_delta"
    partial_json: str


class BlockDelta(BaseModel):
    type: Literal["content_block_delta"] = "content_block_delta"
    index: int
    delta: TextPiece | ThinkingPiece | InputPiece


class BlockStop(BaseModel):
    type: Literal["content_block_stop"] = "content_block_stop"
    index: int


class LastFields(BaseModel):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(BaseModel):
    type: Literal["message_delta"] = "message_delta"
    delta: LastFields
    usage: MessageUsage
    trivium: Trace | None = Field(default=None, exclude_if=lambda trace: trace is None)


class MessageStop(BaseModel):
    type: Literal["message_stop"] = "message_stop"


MessageEvent = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop

# ---------------------------------------------------------------- errors


class ErrorObject(BaseModel):
    type: str
    message: str


class MessagesError(BaseModel):
    """Anthropic's error body, and its error event."""

    type: Literal["error"] = "error"
    error: ErrorObject
    request_id: str | None = None
