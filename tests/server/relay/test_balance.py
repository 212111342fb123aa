"""Replicas are chosen by conversation, and by load where that differs much."""

from __future__ import annotations

from collections import Counter
from typing import Any

from server.relay.balance import (
    MARGIN_TOKENS,
    USUAL_ANSWER_TOKENS,
    answer_tokens,
    choose,
    conversation_of,
    prompt_tokens,
)
from server.relay.snapshot import Endpoint

REPLICAS = [Endpoint(f"http://10.0.0.{n}/v1", "m") for n in range(4)]


def favourites(replicas: list[Endpoint], count: int = 400) -> list[Endpoint]:
    return [choose(replicas, {}, f"conversation {n}") for n in range(count)]


def test_conversations_are_spread_and_stay() -> None:
    first = favourites(REPLICAS)
    assert first == favourites(REPLICAS[::-1])
    assert min(Counter(first)[replica] for replica in REPLICAS) > 60


def test_a_replica_that_leaves_moves_its_own_conversations_only() -> None:
    before, after = favourites(REPLICAS), favourites(REPLICAS[1:])
    assert all(a == b for a, b in zip(after, before, strict=True) if b != REPLICAS[0])


def test_a_favourite_that_is_much_busier_is_left() -> None:
    favourite = choose(REPLICAS, {}, "talk")
    loads = {replica: 100 * n for n, replica in enumerate(r for r in REPLICAS if r != favourite)}
    assert choose(REPLICAS, loads | {favourite: MARGIN_TOKENS}, "talk") == favourite
    least = min(loads, key=loads.__getitem__)
    assert choose(REPLICAS, loads | {favourite: MARGIN_TOKENS + 1}, "talk") == least


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"{role} {n}"} for n, role in enumerate(roles)]}


def test_later_turns_belong_to_the_same_conversation() -> None:
    first, later = turns("system", "user"), turns("system", "user", "assistant", "user")
    assert conversation_of(first) == conversation_of(later)
    assert conversation_of(first) != conversation_of(turns("developer", "user"))


def test_estimates_of_tokens() -> None:
    assert prompt_tokens({"messages": [{"role": "user", "content": "x" * 4000}]}) > 1000
    assert answer_tokens({"max_tokens": 7}) == 7
    assert answer_tokens({}) == USUAL_ANSWER_TOKENS
