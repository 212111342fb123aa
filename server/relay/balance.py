"""Which replica of a model gets a request: a pure choice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from server.relay.snapshot import Endpoint

MARGIN_TOKENS = 2048
"""How much more work than the least busy replica a conversation's favourite may have. Beyond it
a cached prefix saves less than the wait costs."""
USUAL_ANSWER_TOKENS = 256
"""For an answer whose request sets no limit."""
BYTES_PER_TOKEN = 4
PROMPT_CHARACTERS = 500
"""Of a raw prompt, in which no turns can be told apart."""


def choose(
    replicas: Sequence[Endpoint], outstanding: Mapping[Endpoint, int], conversation: str
) -> Endpoint:
    """The favourite of the conversation, unless it is busier than the least busy replica by more
    than MARGIN_TOKENS; then the least busy one. `outstanding` counts tokens.

    The favourite is found by rendezvous hashing: when a replica comes or goes, only the
    conversations that are its own change places.
    """
    if len(replicas) == 1:
        return replicas[0]
    ranked = sorted(replicas, key=lambda replica: _rank(conversation, replica))
    least = min(ranked, key=lambda replica: outstanding.get(replica, 0))
    busier = outstanding.get(ranked[0], 0) - outstanding.get(least, 0)
    return least if busier > MARGIN_TOKENS else ranked[0]


def conversation_of(body: Mapping[str, Any]) -> str:
    """What all turns of a conversation begin with: its messages up to the first of the user."""
    messages = body.get("messages", ())
    if not messages:
        return repr(body.get("prompt"))[:PROMPT_CHARACTERS]
    users = (i for i, message in enumerate(messages) if message.get("role") == "user")
    return repr(messages[: next(users, 0) + 1])


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """An estimate of the prompt's tokens, which no tokenizer has counted yet."""
    return len(repr(body.get("messages") or body.get("prompt"))) // BYTES_PER_TOKEN


def answer_tokens(body: Mapping[str, Any]) -> int:
    """Tokens that may come."""
    return int(body.get("max_tokens") or USUAL_ANSWER_TOKENS)


def _rank(conversation: str, replica: Endpoint) -> bytes:
    return hashlib.blake2b(f"{replica.base_url} {conversation}".encode(), digest_size=8).digest()
