"""Wire models of `POST /v1/completions`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from server.api.chat.schemas import (
    AUTO,
    INT64,
    MAX_CHOICES,
    MAX_STOPS,
    MAX_TOP_LOGPROBS,
    NO_OPTIONS,
    Penalty,
    StopString,
    StreamOptions,
    Trace,
    TriviumOptions,
    UsageBlock,
    Wire,
)

MAX_COMPLETIONS = 128
"""Prompts times choices of one request."""
DEFAULT_MAX_TOKENS = 16
"""OpenAI's, and so vLLM's."""

TokenId = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
Prompt = (
    Text
    | Annotated[list[Text], Field(min_length=1)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1)]
)


class CompletionRequest(Wire):
    """`POST /v1/completions`. Fields that are not listed go on to the worker as they are.

    A raw prompt has no beginning of an answer, the place for which expert tokens are learned: the
    model `trivium` is the meta LLM here, and no expert is called.
    """

    path: ClassVar[str] = "/completions"
    """At the workers."""
    background_call: ClassVar[None] = None
    """Chat frontends do not ask like this."""

    model: str = AUTO
    prompt: Prompt
    """Token ids are those of one model's tokenizer, so they need one that is pinned."""
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    best_of: int | None = Field(default=None, ge=1)
    echo: bool | None = None
    suffix: None = None
    prompt_embeds: None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    stop: StopString | list[StopString] | None = None
    stop_token_ids: list[int] | None = None
    seed: int | None = Field(default=None, ge=-INT64, lt=INT64)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    min_tokens: int | None = Field(default=None, ge=0)
    include_stop_str_in_output: bool | None = None
    vllm_xargs: dict[str, Any] | None = None
    use_beam_search: Literal[False] | None = None
    trivium: TriviumOptions | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> CompletionRequest:
        if (self.model_extra or {}).get("prompt_logprobs") is not None:
            raise ValueError("prompt_logprobs is not supported: models are asked for streams")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        if len(self.stops) > MAX_STOPS:
            raise ValueError(f"stop takes at most {MAX_STOPS} strings")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of is not supported beyond n; leave it out")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens may be 0 only with echo")
        if self.choices > MAX_COMPLETIONS:
            raise ValueError(f"at most {MAX_COMPLETIONS} completions in one request; send several")
        if self.model == AUTO and any(not isinstance(prompt, str) for prompt in self.prompts):
            raise ValueError(
                "a prompt of token ids needs a pinned model, since the models' tokenizers differ:"
                " trivium/meta, or trivium/NAME of an expert"
            )
        if self.options.experts or self.options.bias:
            raise ValueError(
                "experts are called in chats only; use /v1/chat/completions, or pin one as"
                " trivium/NAME"
            )
        return self

    @property
    def prompts(self) -> tuple[str | list[int], ...]:
        if isinstance(self.prompt, str):
            return (self.prompt,)
        ids = [token for token in self.prompt if isinstance(token, int)]
        return (ids,) if ids else tuple(p for p in self.prompt if not isinstance(p, int))

    @property
    def choices(self) -> int:
        return len(self.prompts) * (self.n or 1)

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def budget(self) -> int | None:
        """Tokens that each completion may have; None: nothing but the prompt is wanted."""
        return (DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens) or None

    @property
    def options(self) -> TriviumOptions:
        return self.trivium or NO_OPTIONS

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not None

    @property
    def structured(self) -> bool:
        """Whether text that was written so far cannot be gone on from by a new request: a grammar
        binds it, or it follows token ids."""
        free = self.response_format is None or self.response_format.get("type") == "text"
        texts = all(isinstance(prompt, str) for prompt in self.prompts)
        return bool(self.structured_outputs or not free or not texts)


# ---------------------------------------------------------------- answer


class CompletionLogprobs(BaseModel):
    """One entry for each token. The first token of an echoed prompt has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One completion, or in a stream more text of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None = None


class Completion(BaseModel):
    """The answer in one piece, or one event of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageBlock | None = None
    trivium: Trace | None = None
