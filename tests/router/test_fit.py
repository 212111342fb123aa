"""Fitting a row on states whose truth is known."""

import numpy as np

from router.fit import FALSE_LATER_RATE, FALSE_START_RATE, States, fit_row, join

HIDDEN = 32
RNG = np.random.default_rng(0)
TOPIC = RNG.normal(size=HIDDEN)


def states(start: int, later: int, shift: float, spread: float = 1.0) -> States:
    """States around `shift` along the topic's direction."""

    def draw(count: int) -> np.ndarray:
        noise = RNG.normal(size=(count, HIDDEN)) * spread
        return (noise + shift * TOPIC).astype(np.float32)

    return States(draw(start), draw(later))


def test_the_row_tells_the_expert_from_the_rest_on_unseen_states() -> None:
    row = fit_row(states(25, 40, 1.0), states(30, 200, 0.0), states(200, 3000, 0.0))
    mine, other = states(400, 400, 1.0), states(400, 5000, 0.0)
    assert (row.scores(mine.start, start=True) > 0).mean() > 0.97
    assert (row.scores(mine.later, start=False) > 0).mean() > 0.9
    assert (row.scores(other.start, start=True) > 0).mean() < 2 * FALSE_START_RATE
    assert (row.scores(other.later, start=False) > 0).mean() < 5 * FALSE_LATER_RATE


def test_biases_hold_the_target_rates_where_classes_overlap() -> None:
    row = fit_row(states(50, 50, 0.15), states(10, 50, 0.0), states(300, 4000, 0.0))
    other = states(4000, 20_000, 0.0)
    assert (row.scores(other.start, start=True) > 0).mean() < 3 * FALSE_START_RATE
    assert (row.scores(other.later, start=False) > 0).mean() < 5 * FALSE_LATER_RATE


def test_an_expert_without_later_states_can_be_fitted() -> None:
    row = fit_row(states(25, 0, 1.0), states(10, 0, 0.0), states(100, 500, 0.0))
    assert np.isfinite([row.start, row.later, *row.weights]).all()
    assert (row.scores(states(100, 0, 1.0).start, start=True) > 0).mean() > 0.9


def test_join_keeps_every_state() -> None:
    both = join([states(2, 3, 0.0), states(4, 0, 0.0)])
    assert (len(both.start), len(both.later), len(both.all)) == (6, 3, 9)
