"""Accounts: what one HTTP request has cost, whoever asks the dispatcher on its behalf."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from server.relay.events import Segment, Usage
from server.seeing.accounts import account, keep_accounts
from server.seeing.observe import LegStarted, RequestEnded, RequestStarted


def spend(
    usage: Usage,
    outcome: Literal["finished", "failed", "aborted"] = "finished",
    first_ms: float | None = 20.0,
) -> None:
    """One answer of the dispatcher."""
    request = RequestStarted("trivium")
    keep_accounts(request)
    keep_accounts(LegStarted(request, 0, "meta"))
    segment = Segment("meta", 0, 0, 1, 0.0, 30.0, 1, "finished", first_ms=first_ms)
    keep_accounts(RequestEnded(request, outcome, usage, (segment,)))


def test_answers_of_one_request_add_up() -> None:
    with account() as used:
        spend(Usage(10, 3))
        spend(Usage(20, 4), first_ms=5.0)
    assert used.usage == Usage(30, 7)
    assert (used.model, used.legs, used.first_token) == ("trivium", ["meta", "meta"], 0.02)
    assert used.tokens(body_bytes=4000) == 37


@pytest.mark.parametrize(
    ("usage", "outcome", "first_ms", "tokens"),
    [
        (Usage(0, 0), "aborted", None, 100),
        (Usage(0, 6), "aborted", 20.0, 106),
        (Usage(0, 6), "finished", 20.0, 106),
        (Usage(0, 6), "failed", 20.0, 106),
        (Usage(0, 0), "failed", None, 0),
        (Usage(10, 0), "failed", None, 10),
    ],
)
def test_a_prompt_that_no_worker_counted_is_estimated(
    usage: Usage,
    outcome: Literal["finished", "failed", "aborted"],
    first_ms: float | None,
    tokens: int,
) -> None:
    with account() as used:
        spend(usage, outcome, first_ms)
    assert used.tokens(body_bytes=400) == tokens


def test_a_request_that_asks_no_model_costs_nothing() -> None:
    with account() as used:
        pass
    spend(Usage(10, 3))
    assert used.model is None
    assert used.tokens(body_bytes=400) == 0


async def test_accounts_do_not_mix_and_those_around_see_what_those_within_see() -> None:
    async def request(tokens: int) -> tuple[int, int]:
        with account() as outer:
            await asyncio.sleep(0)
            with account() as inner:
                await asyncio.create_task(one(tokens))
            spend(Usage(1, 0))
        return outer.tokens(0), inner.tokens(0)

    async def one(tokens: int) -> None:
        await asyncio.sleep(0)
        spend(Usage(tokens, 0))

    assert await asyncio.gather(request(5), request(7)) == [(6, 5), (8, 7)]
