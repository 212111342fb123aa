"""Wire models of answers of `POST /v1/responses`: the response, its items, its events.

Checked in the tests against `openai.types.responses`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from server.api.chat.schemas import Trace

Status = Literal["in_progress", "completed", "incomplete"]

# ---------------------------------------------------------------- items


class TopLogprob(BaseModel):
    token: str
    bytes: list[int]
    logprob: float


class Logprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class OutputText(BaseModel):
    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: list[dict[str, Any]] = []
    logprobs: list[Logprob] = []


class ReasoningText(BaseModel):
    type: Literal["reasoning_text"] = "reasoning_text"
    text: str = ""


class OutputMessage(BaseModel):
    """What the models wrote."""

    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: Status = "in_progress"
    content: list[OutputText] = []


class FunctionCall(BaseModel):
    """A call that the client is asked to carry out."""

    type: Literal["function_call"] = "function_call"
    id: str
    call_id: str
    name: str
    arguments: str = ""
    status: Status = "in_progress"


class ReasoningItem(BaseModel):
    """What a reasoning model thought, where its worker tells."""

    type: Literal["reasoning"] = "reasoning"
    id: str
    summary: list[dict[str, Any]] = []
    content: list[ReasoningText] = []
    status: Status = "in_progress"


OutputItem = OutputMessage | FunctionCall | ReasoningItem

# ---------------------------------------------------------------- the response


class InputTokensDetails(BaseModel):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(BaseModel):
    reasoning_tokens: int = 0


class ResponseUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(BaseModel):
    code: Literal["server_error"] = "server_error"
    message: str


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens", "content_filter"]


class ResponseObject(BaseModel):
    """The answer. What the request asked for is repeated in it."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    output: list[OutputItem] = []
    usage: ResponseUsage | None = None
    background: Literal[False] = False
    store: Literal[False] = False
    previous_response_id: None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    reasoning: dict[str, Any] | None
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float | None
    truncation: Literal["auto", "disabled"]
    user: str | None
    trivium: Trace | None = Field(default=None, exclude_if=lambda trace: trace is None)
    """Only if the request asked for a trace."""


# ---------------------------------------------------------------- events


class ResponseEvent(BaseModel):
    """One event of a streamed answer; `type` is its name."""

    type: str
    sequence_number: int = 0


class LifeEvent(ResponseEvent):
    """response.created, .in_progress, .completed, .incomplete, .failed"""

    response: ResponseObject


class ItemEvent(ResponseEvent):
    """response.output_item.added, .done"""

    output_index: int
    item: OutputItem


class WithinItem(ResponseEvent):
    output_index: int
    item_id: str


class PartEvent(WithinItem):
    """response.content_part.added, .done"""

    content_index: int = 0
    part: OutputText | ReasoningText


class TextDeltaEvent(WithinItem):
    type: str = "response.output_text.delta"
    content_index: int = 0
    delta: str
    logprobs: list[Logprob]


class TextDoneEvent(WithinItem):
    type: str = "response.output_text.done"
    content_index: int = 0
    text: str
    logprobs: list[Logprob]


class ReasoningDeltaEvent(WithinItem):
    type: str = "response.reasoning_text.delta"
    content_index: int = 0
    delta: str


class ReasoningDoneEvent(WithinItem):
    type: str = "response.reasoning_text.done"
    content_index: int = 0
    text: str


class ArgumentsDeltaEvent(WithinItem):
    type: str = "response.function_call_arguments.delta"
    delta: str


class ArgumentsDoneEvent(WithinItem):
    type: str = "response.function_call_arguments.done"
    name: str
    arguments: str


AnyResponseEvent = (
    LifeEvent
    | ItemEvent
    | PartEvent
    | TextDeltaEvent
    | TextDoneEvent
    | ReasoningDeltaEvent
    | ReasoningDoneEvent
    | ArgumentsDeltaEvent
    | ArgumentsDoneEvent
)
