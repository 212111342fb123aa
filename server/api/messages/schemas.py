"""Wire models of requests to `POST /v1/messages`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from server.api.chat.schemas import AUTO, MAX_STOPS, StopString, TriviumOptions, Wire

# ---------------------------------------------------------------- content blocks


class TextBlock(Wire):
    """Text. The models here read nothing else."""

    type: Literal["text"]
    text: str


class ThinkingBlock(Wire):
    """What the assistant thought in an earlier turn."""

    type: Literal["thinking"]
    thinking: str


class RedactedThinkingBlock(Wire):
    """Thinking that only its author can read; left out."""

    type: Literal["redacted_thinking"]


class ToolUseBlock(Wire):
    """A call that the assistant asked for in an earlier turn."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Wire):
    """What the client's tool gave."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] | None = None


ContentBlock = Annotated[
    TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock,
    Field(discriminator="type"),
]


class TurnMessage(Wire):
    """One turn of the conversation. An assistant's at the end is continued."""

    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


# ---------------------------------------------------------------- tools and options


class Tool(Wire):
    """A tool that the client carries out. Those of Anthropic's own servers are not here."""

    type: Literal["custom"] | None = None
    name: str = Field(min_length=1)
    description: str | None = None
    input_schema: dict[str, Any]


class AnyChoice(Wire):
    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class ToolChoice(Wire):
    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


class Thinking(Wire):
    """How much a reasoning model may think is a setting of its worker; only `disabled` goes on."""

    type: Literal["enabled", "disabled", "adaptive"]


class SchemaOutput(Wire):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Wire):
    format: SchemaOutput | None = None
    effort: str | None = None


class RequestMetadata(Wire):
    user_id: str | None = None


class CountRequest(Wire):
    """`POST /v1/messages/count_tokens`: what a prompt is made of."""

    model: str = AUTO
    messages: list[TurnMessage] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: Annotated[AnyChoice | ToolChoice, Field(discriminator="type")] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    @field_validator("tools", mode="before")
    @classmethod
    def _own_tools_only(cls, tools: Any) -> Any:
        for tool in tools if isinstance(tools, list) else ():
            kind = tool.get("type") if isinstance(tool, dict) else None
            if isinstance(kind, str) and kind != "custom":
                raise ValueError(
                    f"this server runs no tool of its own, so none of type {kind!r}; give tools"
                    " with an input_schema, which your program carries out"
                )
        return tools


class MessagesRequest(CountRequest):
    """`POST /v1/messages`. Fields that are not listed go on to the workers as they are."""

    max_tokens: int = Field(ge=1)
    stop_sequences: Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = None
    metadata: RequestMetadata | None = None
    trivium: TriviumOptions | None = None
