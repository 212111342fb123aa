"""When a breaker opens, when it is probed, and when it closes again."""

from __future__ import annotations

import pytest

from server.relay.breaker import Breaker, BreakerPolicy

POLICY = BreakerPolicy(failures=3, window=8, share=0.5, first_backoff=1.0, last_backoff=4.0)


def breaker(jitter: float = 1.0) -> Breaker:
    """`jitter` 1: back-offs have their full length."""
    return Breaker(POLICY, lambda: jitter)


def opened(at: float = 10.0) -> Breaker:
    made = breaker()
    for _ in range(POLICY.failures):
        made.failed(at)
    assert made.state == "open"
    return made


def test_failures_in_a_row_open_it() -> None:
    one = breaker()
    for _ in range(POLICY.failures - 1):
        one.failed(0.0)
    assert one.state == "closed"
    one.succeeded()
    one.failed(0.0)
    assert one.state == "closed"
    one.failed(0.0)
    one.failed(0.0)
    assert one.state == "open"


def test_a_large_share_of_failures_opens_it() -> None:
    one = breaker()
    for _ in range(POLICY.window // 2 - 1):
        one.failed(0.0)
        one.succeeded()
    one.failed(0.0)
    assert one.state == "closed", "the window is not full yet"
    one.succeeded()
    one.failed(0.0)
    assert one.state == "open"


def test_a_small_share_does_not() -> None:
    one = breaker()
    for _ in range(10 * POLICY.window):
        one.failed(0.0)
        one.succeeded()
        one.succeeded()
    assert one.state == "closed"


def test_one_probe_after_the_back_off() -> None:
    one = opened(at=10.0)
    assert one.probe_at == 11.0
    assert not one.begin_probe(10.9)
    assert one.begin_probe(11.0)
    assert one.state == "half_open"
    assert not one.begin_probe(12.0), "a second probe beside the first"
    one.probed(True, 12.0)
    assert one.state == "closed"
    one.failed(13.0)
    assert one.state == "closed", "old failures count no more"


def test_back_offs_grow_to_a_limit_and_start_again() -> None:
    one, now = opened(at=0.0), 0.0
    lengths = []
    for _ in range(4):
        lengths.append(one.probe_at - now)
        now = one.probe_at
        assert one.begin_probe(now)
        one.probed(False, now)
    assert lengths == [1.0, 2.0, 4.0, 4.0]
    now = one.probe_at
    one.begin_probe(now)
    one.probed(True, now)
    for _ in range(POLICY.failures):
        one.failed(now)
    assert one.probe_at == now + 1.0


@pytest.mark.parametrize(("jitter", "pause"), [(0.0, 0.5), (0.5, 0.75)])
def test_back_offs_are_shortened_at_random(jitter: float, pause: float) -> None:
    one = breaker(jitter)
    for _ in range(POLICY.failures):
        one.failed(0.0)
    assert one.probe_at == pause


def test_requests_of_before_do_not_count_while_it_is_open() -> None:
    one = opened(at=0.0)
    one.succeeded()
    one.failed(5.0)
    assert (one.state, one.probe_at) == ("open", 1.0)
    one.begin_probe(1.0)
    one.succeeded()
    assert one.state == "half_open"
