"""The fast path for the chunks that streams are made of: one text, maybe usage, nothing else."""

from __future__ import annotations

from msgspec import MsgspecError, Struct
from msgspec.json import Decoder

from server.relay.events import TextDelta, Usage, WorkerEvent


class _PromptDetails(Struct, gc=False):
    cached_tokens: int | None = None


class _CompletionDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(Struct, gc=False):
    completion_tokens: int
    prompt_tokens: int
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Delta(Struct, gc=False, forbid_unknown_fields=True):
    content: str | None = None
    role: str | None = None
    reasoning: None = None
    reasoning_content: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None


class _Choice(Struct, gc=False):
    delta: _Delta
    finish_reason: None = None
    logprobs: None = None


class _Chunk(Struct, gc=False):
    """What these fields cannot hold does not fit, and is for the general parser."""

    choices: list[_Choice]
    usage: _Usage | None = None
    error: None = None


_DECODER = Decoder(_Chunk)


def plain_events(data: bytes) -> list[WorkerEvent] | None:
    """The events of a `chat.completion.chunk`, as `upstream.parse_event` gives them; None if it is
    not a plain one, or broken."""
    try:
        # As text: in bytes, bad UTF-8 would not be seen in a field that is skipped.
        chunk = _DECODER.decode(data if data.isascii() else data.decode())
    except (MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    events: list[WorkerEvent] = []
    if (usage := chunk.usage) is not None:
        prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
        events.append(
            Usage(
                usage.prompt_tokens,
                usage.completion_tokens,
                prompt.cached_tokens if prompt else None,
                completion.reasoning_tokens if completion else None,
            )
        )
    if chunk.choices and (text := chunk.choices[0].delta.content):
        events.append(TextDelta(text))
    return events
