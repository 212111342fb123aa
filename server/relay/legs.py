"""What one leg of an answer is, and the request body that its worker gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from router.sentences import ends_sentence
from server.api.chat.schemas import AUTO as AUTO
from server.api.chat.schemas import ChatCompletionRequest
from server.api.completions.schemas import CompletionRequest
from server.errors import NotReady, UnknownModel
from server.relay.snapshot import Endpoint, LiveExpert, Snapshot

META = "meta"

GenerationRequest = ChatCompletionRequest | CompletionRequest
"""What dispatch answers; other forms of the API are translated to one of these."""

NOT_FORWARDED = frozenset(
    {
        "trivium",
        # set by us for every leg
        "model",
        "n",
        "best_of",
        "prompt",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        # refused by the schema unless false, or set by us
        "echo",
        "use_beam_search",
        # between servers, not for clients
        "request_id",
        "kv_transfer_params",
        "ec_transfer_params",
    }
)
META_TOKEN_IDS = frozenset(
    {"logit_bias", "allowed_token_ids", "logprob_token_ids", "stop_token_ids"}
)
"""Fields in the meta LLM's token ids, which mean other tokens to an expert."""
NOT_FOR_DECISION = META_TOKEN_IDS | {
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "structured_outputs",
    "stop",
    "min_tokens",
    "logprobs",
    "top_logprobs",
    "bad_words",
    "thinking_token_budget",
}
"""Fields that could keep the meta LLM from writing an expert token first."""


@dataclass(frozen=True)
class Target:
    """A model that can write a leg. `name` is "meta" or the expert's."""

    name: str
    endpoints: tuple[Endpoint, ...]
    """Its replicas when the request began; at least one. All have the same name for the model."""


@dataclass(frozen=True)
class Plan:
    """What a request allows, decided once from its body and the snapshot."""

    home: Target
    experts: tuple[LiveExpert, ...] = ()
    budget: int | None = None
    """Tokens that the answer may have."""
    stops: tuple[str, ...] = ()
    include_stop: bool = False
    position: Literal["start", "anywhere"] = "anywhere"
    structured: bool = False
    """Tools or a grammar: one model writes the whole answer, chosen before it begins."""
    logprobs: bool = False
    """Whether the client asked for log-probabilities."""


@dataclass(frozen=True)
class Leg:
    """One request to one worker.

    `text` continues from `prefix`; `decision` asks the meta LLM for the first token alone;
    `whole` is the client's request, tools and all. `experts` are those whose token may end it.
    """

    target: Target
    purpose: Literal["text", "decision", "whole"]
    choice: int = 0
    at_home: bool = True
    prefix: str = ""
    max_tokens: int | None = None
    spent: int = 0
    experts: tuple[LiveExpert, ...] = ()
    position: Literal["start", "anywhere"] = "anywhere"


def make_plan(request: GenerationRequest, snapshot: Snapshot) -> Plan:
    """What `request` allows. Raises UnknownModel and NotReady."""
    options = request.options
    restrict = options.experts
    routed = request.model == AUTO and isinstance(request, ChatCompletionRequest)
    routed = routed and request.background_call is None
    allowed = tuple(e for e in snapshot.experts if restrict is None or e.name in restrict)
    return Plan(
        home=_home(request.model, snapshot),
        experts=allowed if routed else (),
        budget=request.budget,
        stops=request.stops,
        include_stop=bool(request.include_stop_str_in_output),
        position=options.position,
        structured=request.structured,
        logprobs=request.wants_logprobs,
    )


def _home(model: str, snapshot: Snapshot) -> Target:
    prefix, _, name = model.partition("/")
    if model == AUTO or (prefix, name) == (AUTO, META):
        if not snapshot.meta:
            raise NotReady(
                "the meta LLM cannot be asked now: it is starting, or its requests fail; try again"
                " in a few seconds"
            )
        return Target(META, snapshot.meta)
    expert = snapshot.by_name(name) if prefix == AUTO else None
    if expert is None:
        raise UnknownModel(
            f"the model {model!r} does not exist; GET /v1/models lists those that do",
            param="model",
        )
    return Target(expert.name, expert.endpoints)


def worker_body(request: GenerationRequest, leg: Leg, explain: str | None = None) -> dict[str, Any]:
    """The body of `leg`'s request: the client's fields, with what the leg changes. `explain` is a
    key under which the meta worker keeps what decided."""
    fields = request.model_dump(exclude_unset=True, exclude=_dropped(leg.purpose, leg.at_home))
    body = {k: v for k, v in fields.items() if v is not None}
    body["model"] = leg.target.endpoints[0].model
    body["stream"] = True
    # Continuous: a leg that is left or lost in the middle has its tokens counted all the same.
    body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    if isinstance(request, CompletionRequest):
        _set_prompt(body, request, leg)
    elif leg.prefix:
        _continue(body, leg.prefix)
    if leg.max_tokens is not None:
        body["max_tokens"] = leg.max_tokens
    if "seed" in body:
        body["seed"] = _wrapped(body["seed"] + leg.choice % (request.n or 1))
    if "min_tokens" in body:
        body["min_tokens"] = max(0, body["min_tokens"] - leg.spent)
    xargs = {k: v for k, v in body.pop("vllm_xargs", {}).items() if not k.startswith("trivium_")}
    if leg.experts:
        ids = [expert.token_id for expert in leg.experts]
        body["stop_token_ids"] = list(dict.fromkeys([*body.get("stop_token_ids", ()), *ids]))
        if body.get("include_stop_str_in_output"):
            body.pop("skip_special_tokens", None)  # the expert token would be shown
        xargs |= _gate(request, leg)
        if explain is not None:
            xargs["trivium_explain"] = explain
    if xargs:
        body["vllm_xargs"] = xargs
    return body


@cache
def _dropped(purpose: str, at_home: bool) -> set[str]:
    """The client's fields that a leg's worker does not get."""
    dropped = NOT_FORWARDED | (frozenset() if at_home else META_TOKEN_IDS)
    return set(dropped | NOT_FOR_DECISION if purpose == "decision" else dropped)


def _gate(request: GenerationRequest, leg: Leg) -> dict[str, Any]:
    """Arguments of the logits gate at the meta worker."""
    gate: dict[str, Any] = {
        "trivium_experts": [expert.token_id for expert in leg.experts],
        "trivium_position": leg.position,
    }
    if leg.prefix and not ends_sentence(leg.prefix):
        gate["trivium_midway"] = 1
    if request.options.bias:
        gate["trivium_bias"] = [request.options.bias.get(e.name, 0.0) for e in leg.experts]
    return gate


def _set_prompt(body: dict[str, Any], request: CompletionRequest, leg: Leg) -> None:
    """The prompt of `leg`'s choice, and the text so far, which begins with an echoed prompt."""
    prompt = request.prompts[leg.choice // (request.n or 1)]
    if leg.prefix:
        assert isinstance(prompt, str), "text that follows token ids is not continued"
        body["prompt"] = leg.prefix if request.echo else prompt + leg.prefix
        return
    body["prompt"] = prompt
    if request.echo:
        body["echo"] = True
    if request.max_tokens == 0:
        body["max_tokens"] = 0


def _continue(body: dict[str, Any], prefix: str) -> None:
    """End the messages with an unfinished assistant turn that says `prefix`.

    An unfinished turn of the client's own is continued instead of followed by another.
    """
    messages = list(body["messages"])
    if body.get("continue_final_message"):
        messages[-1] = _extended(messages[-1], prefix)
    else:
        messages.append({"role": "assistant", "content": prefix})
    body["messages"] = messages
    body["continue_final_message"] = True
    body["add_generation_prompt"] = False


def _extended(message: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    content = message.get("content") or ""
    if isinstance(content, str):
        return {**message, "content": content + prefix}
    *parts, last = content
    return {**message, "content": [*parts, {**last, "text": last["text"] + prefix}]}


def _wrapped(seed: int) -> int:
    """`seed` as a signed 64-bit number: the offset of a choice may carry it over the edge."""
    return (seed + 2**63) % 2**64 - 2**63
