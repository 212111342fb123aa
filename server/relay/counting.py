"""How many tokens a conversation has: asked of the tokenizer of the model that would answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from server.api.chat.schemas import ChatCompletionRequest
from server.errors import NotReady, Unprocessable, UpstreamFailed
from server.relay.legs import make_plan
from server.relay.snapshot import Endpoint, SnapshotHolder

TOKENIZE = "/tokenize"
"""vLLM's, beside `/v1`."""
FIELDS = {"messages", "tools", "add_generation_prompt", "continue_final_message"}
"""Of a chat request: what its prompt is made of."""


class AsksWorkers(Protocol):
    """What counting needs of the workers."""

    async def ask(self, endpoint: Endpoint, path: str, body: Mapping[str, Any]) -> bytes | None:
        """What a worker answers; None where it has no such path. Raises UpstreamError."""
        ...


@dataclass(frozen=True)
class TokenCounter:
    """Counts with the workers of the current snapshot."""

    upstream: AsksWorkers
    snapshots: SnapshotHolder

    async def prompt(self, request: ChatCompletionRequest) -> int:
        """Tokens of the request's prompt, in the chat template of the model that begins the answer.

        Replicas are asked in turn until one answers. Raises UnknownModel, NotReady, Unprocessable
        where the model's server cannot count, and UpstreamError.
        """
        home = make_plan(request, self.snapshots.current).home
        endpoints = [endpoint for endpoint in home.endpoints if not endpoint.asleep]
        if not endpoints:
            raise NotReady(f"{home.name!r} is asleep; a question to it wakes it")
        fields = request.model_dump(exclude_none=True, include=FIELDS)
        body = {**fields, "model": endpoints[0].model}
        for endpoint in endpoints[:-1]:
            try:
                return await self._count(endpoint, body)
            except UpstreamFailed:
                continue
        return await self._count(endpoints[-1], body)

    async def _count(self, endpoint: Endpoint, body: Mapping[str, Any]) -> int:
        answer = await self.upstream.ask(endpoint, TOKENIZE, body)
        if answer is None:
            raise Unprocessable(
                "this model's server does not count tokens; vLLM's, with its /tokenize, does",
                param="model",
            )
        try:
            return int(json.loads(answer)["count"])
        except (ValueError, TypeError, KeyError):
            raise UpstreamFailed("the model's server answered with no count") from None
