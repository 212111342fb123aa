"""Wire models of the OpenAI-compatible API: what clients send and what they get."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from server.api.chat.background import BackgroundPrompt, recognise

AUTO = "trivium"
"""The model that routes by itself; `trivium/NAME` pins the meta LLM or an expert."""
MAX_CHOICES = 32
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
INT64 = 2**63

Number = Annotated[float, Field(allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
StopString = Annotated[str, Field(min_length=1, max_length=1000)]


class Wire(BaseModel):
    """Known fields are checked, unknown ones kept: they go on to the workers."""

    model_config = ConfigDict(extra="allow")


# ---------------------------------------------------------------- request


class TextPart(Wire):
    """A content part. The models here read text only."""

    type: Literal["text"]
    text: str


class ChatMessage(Wire):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> ChatMessage:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of role {self.role!r} needs content")
        return self


class StreamOptions(Wire):
    include_usage: bool | None = None


class TriviumOptions(BaseModel):
    """Our own field of the request; never forwarded to a worker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trace: bool = False
    """Tell which model wrote which part, in a `trivium` object at the end of the answer."""
    experts: list[str] | None = None
    """Only these experts may be called; null: all, an empty list: none."""
    position: Literal["start", "anywhere"] = "anywhere"
    """Where an expert may be called: before the first token only, or in mid-answer too."""
    bias: dict[str, Number] | None = None
    """Added to the named experts' scores at the meta LLM."""
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds that the whole answer may take, if that is less than the server allows."""


NO_OPTIONS = TriviumOptions()
"""Of a request without that field."""


class ChatCompletionRequest(Wire):
    """`POST /v1/chat/completions`. Fields that are not listed go on to the workers as they are."""

    path: ClassVar[str] = "/chat/completions"
    """At the workers."""

    model: str = AUTO
    messages: list[ChatMessage] = Field(min_length=1)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: StopString | list[StopString] | None = None
    stop_token_ids: list[int] | None = None
    seed: int | None = Field(default=None, ge=-INT64, lt=INT64)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    tools: list[dict[str, Any]] | None = Field(default=None, min_length=1)
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    min_tokens: int | None = Field(default=None, ge=0)
    include_stop_str_in_output: bool | None = None
    vllm_xargs: dict[str, Any] | None = None
    echo: Literal[False] | None = None
    use_beam_search: Literal[False] | None = None
    trivium: TriviumOptions | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> ChatCompletionRequest:
        if (self.model_extra or {}).get("prompt_logprobs") is not None:
            raise ValueError("prompt_logprobs is not supported: models are asked for streams")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if len(self.stops) > MAX_STOPS:
            raise ValueError(f"stop takes at most {MAX_STOPS} strings")
        if self.continue_final_message and self.add_generation_prompt:
            raise ValueError("continue_final_message and add_generation_prompt exclude each other")
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise ValueError("continue_final_message needs an assistant message at the end")
        return self

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def budget(self) -> int | None:
        """Tokens the answer may have; `max_completion_tokens` wins, as in vLLM."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens
        return self.max_tokens

    @property
    def options(self) -> TriviumOptions:
        return self.trivium or NO_OPTIONS

    @cached_property
    def background_call(self) -> BackgroundPrompt | None:
        """What a chat frontend asks for itself, if it is that; such a request is not routed."""
        return recognise(self.messages)

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.logprobs)

    @property
    def structured(self) -> bool:
        """Whether tools or a grammar bind the answer, so that it cannot change models midway."""
        free = self.response_format is None or self.response_format.get("type") == "text"
        return bool(self.tools or self.structured_outputs or not free)


# ---------------------------------------------------------------- answer


class TokenDetails(BaseModel):
    """Parts of a token count; only those that the workers report."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class UsageBlock(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None


class Decision(BaseModel):
    """The expert token that a segment began with."""

    token_id: int
    probability: float | None = None


class TraceSegment(BaseModel):
    """Which model wrote characters `start` to `end` of a choice, and when (ms since arrival)."""

    choice: int
    model: str
    start: int
    end: int
    start_ms: float
    first_ms: float | None = None
    """When its first token came; left out if none did."""
    end_ms: float
    tokens: int
    outcome: Literal["finished", "handoff", "failed", "aborted"]
    decision: Decision | None = None
    chances: dict[str, float] | None = None
    """The meta LLM's segments: P of each expert where it handed over, or else where it began."""
    error: str | None = None


class Trace(BaseModel):
    """The `trivium` object of an answer whose request asked for a trace."""

    segments: list[TraceSegment]


class Choice(BaseModel):
    index: int
    message: dict[str, Any]
    logprobs: dict[str, Any] | None = None
    finish_reason: str
    stop_reason: int | str | None = None


class ChatCompletion(BaseModel):
    """The answer in one piece."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageBlock
    trivium: Trace | None = None


class ChunkChoice(BaseModel):
    index: int
    delta: dict[str, Any]
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class ChatCompletionChunk(BaseModel):
    """One event of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageBlock | None = None
    trivium: Trace | None = None


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "trivium"
    max_model_len: int | None = None


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
