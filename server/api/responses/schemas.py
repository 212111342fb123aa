"""Wire models of requests to `POST /v1/responses`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from server.api.chat.schemas import (
    AUTO,
    MAX_TOP_LOGPROBS,
    TriviumOptions,
    Wire,
)

WHOLE_CONVERSATION = "this server keeps no answers; send the whole conversation as `input` instead"
NOT_KEPT = {
    "previous_response_id": WHOLE_CONVERSATION,
    "conversation": WHOLE_CONVERSATION,
    "prompt": "this server keeps no prompt templates; send the text as `instructions` and `input`",
    "background": "this server answers while you wait; leave `background` out, or stream",
}
"""Fields that need a server with a memory, and what to do instead."""

# ---------------------------------------------------------------- input items


class InputText(Wire):
    """A content part. The models here read text only."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class InputRefusal(Wire):
    """What an assistant said in an earlier turn."""

    type: Literal["refusal"]
    refusal: str


class InputMessage(Wire):
    """One turn of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText | InputRefusal]


class InputCall(Wire):
    """A call of a function that an earlier answer asked for."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class InputCallOutput(Wire):
    """What the client's function gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]


class ReasoningPart(Wire):
    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class InputReasoning(Wire):
    """Reasoning of an earlier answer."""

    type: Literal["reasoning"]
    content: list[ReasoningPart] | None = None


def _kind(item: Any) -> str:
    """A message may leave out its type."""
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return kind if isinstance(kind, str) else "message"


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputCall, Tag("function_call")]
    | Annotated[InputCallOutput, Tag("function_call_output")]
    | Annotated[InputReasoning, Tag("reasoning")],
    Discriminator(_kind),
]

# ---------------------------------------------------------------- tools and formats


class FunctionTool(Wire):
    """A function that the client carries out. Tools of OpenAI's own servers are not here."""

    type: Literal["function"]
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(Wire):
    type: Literal["function"]
    name: str


class PlainFormat(Wire):
    type: Literal["text", "json_object"]


class SchemaFormat(Wire):
    type: Literal["json_schema"]
    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextConfig(Wire):
    format: PlainFormat | SchemaFormat | None = None


class ReasoningConfig(Wire):
    effort: str | None = None


# ---------------------------------------------------------------- request


class ResponsesRequest(Wire):
    """`POST /v1/responses`. Fields that are not listed go on to the workers as they are."""

    model: str = AUTO
    input: Annotated[str, Field(min_length=1)] | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    store: bool | None = None
    """Accepted, and not done."""
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    background: Literal[False] | None = None
    trivium: TriviumOptions | None = None

    @field_validator(*NOT_KEPT, mode="wrap")
    @classmethod
    def _nothing_is_kept(cls, value: Any, handler: Any, info: Any) -> Any:
        if value is not None and value is not False:
            raise ValueError(NOT_KEPT[info.field_name])
        return handler(value)

    @field_validator("tools", mode="before")
    @classmethod
    def _functions_only(cls, tools: Any) -> Any:
        for tool in tools if isinstance(tools, list) else ():
            kind = tool.get("type") if isinstance(tool, dict) else None
            if isinstance(kind, str) and kind != "function":
                raise ValueError(
                    f"this server runs no tool of its own, so none of type {kind!r}; give it"
                    " functions, which your program carries out"
                )
        return tools
