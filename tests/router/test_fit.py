"""Fitting a row on states whose truth is known."""

import numpy as np
import pytest

from router.fit import FALSE_ROUTE_RATE, TURN_RATE, Evidence, Hints, Rivals, Taught, fit_row
from router.head import Background, Floats, HeadRow, chances
from router.question import Part, fit_question
from router.solver import Space

HIDDEN = 32
RNG = np.random.default_rng(0)
TOPIC, WAITING, PLACE, OTHER = RNG.normal(size=(4, HIDDEN))
"""Directions: the request is the expert's; the request holds it as a second part; its turn; the
request is another expert's."""


def draw(count: int, *directions: Floats) -> Floats:
    return (RNG.normal(size=(count, HIDDEN)) + sum(directions)).astype(np.float32)


def own(count: int, *directions: Floats) -> Evidence:
    return Evidence(draw(count, *(directions or (TOPIC,))), draw(0))


def two_part(count: int) -> Evidence:
    return Evidence(draw(count, WAITING), draw(count, PLACE))


def general(count: int, ends: int = 500) -> Evidence:
    return Evidence(draw(count), draw(ends))


NO_HINTS = Hints(draw(0), np.array([], np.int64), draw(0))
NO_RIVALS = Rivals(draw(0), np.array([], np.int64))
NOTHING = Evidence(draw(0), draw(0))
NO_KINDS = Background.none(HIDDEN)


def fit(
    own: Evidence,
    two_part: Evidence = NOTHING,
    general: Evidence = NOTHING,
    hints: Hints = NO_HINTS,
    rivals: Rivals = NO_RIVALS,
    rows: tuple[HeadRow, ...] = (),
    near: Floats = NOTHING.start,
    taught: Floats = NOTHING.start,
    counter: Floats = NOTHING.start,
    background: Background = NO_KINDS,
) -> HeadRow:
    many = Taught(taught, draw(0), np.array([], np.int64))
    return fit_row(own, hints, two_part, counter, rivals, rows, background, general, near, many)


def share(scores: Floats) -> float:
    return float((scores > 0).mean())


def test_each_question_is_answered_right_on_unseen_states() -> None:
    row = fit(own(30), two_part(60), general(300))
    assert share(row.scores("start", draw(500, TOPIC))) > 0.95
    assert share(row.scores("pending", draw(500, TOPIC))) > 0.7
    assert share(row.scores("pending", draw(500, WAITING))) > 0.9
    assert share(row.scores("turn", draw(500, PLACE))) > 0.95
    assert share(row.scores("start", draw(500, WAITING))) < 0.1


def test_general_traffic_stays_under_the_target_rate() -> None:
    row = fit(own(30), two_part(60), general(600))
    for question in ("start", "pending"):
        assert share(row.scores(question, draw(5000))) < 2 * FALSE_ROUTE_RATE
    assert share(row.scores("turn", draw(5000))) < 1.3 * TURN_RATE


def test_general_queries_of_the_experts_own_subject_do_not_keep_it_silent() -> None:
    mixed = Evidence(np.concatenate([draw(300), draw(12, TOPIC)]), draw(300))
    row = fit(own(30), general=mixed)
    assert share(row.scores("start", draw(500, TOPIC))) > 0.9
    assert share(row.scores("start", draw(3000))) < 2 * FALSE_ROUTE_RATE


def winners(rows: list[HeadRow], states: Floats) -> list[int]:
    scores = np.stack([row.scores("start", states) for row in rows])
    return np.where(scores.max(axis=0) > 0, scores.argmax(axis=0), -1).tolist()


def test_a_new_row_leaves_the_others_their_own_queries() -> None:
    theirs = draw(40, TOPIC * 0.6, OTHER)
    first = fit(Evidence(theirs, draw(0)), general=general(300))
    rivals = Rivals(theirs, np.zeros(40, np.int64))
    second = fit(own(40), general=general(300), rivals=rivals, rows=(first,))
    both = [first, second]
    unseen = draw(500, TOPIC * 0.6, OTHER)
    before = winners([first], unseen)
    changed = sum(a != b for a, b in zip(before, winners(both, unseen), strict=True))
    assert changed <= 0.05 * len(unseen)
    assert np.mean(np.array(winners(both, draw(500, TOPIC))) == 1) > 0.85


def test_counter_examples_keep_queries_like_the_experts_own_away() -> None:
    like = 0.8 * TOPIC + OTHER
    traffic, asked = general(300), own(40)
    plain, told = fit(asked, general=traffic), fit(asked, general=traffic, counter=draw(25, like))
    unwanted = draw(500, like)
    assert share(plain.scores("start", unwanted)) > 0.3
    assert share(told.scores("start", unwanted)) < 0.1
    assert share(told.scores("start", draw(500, TOPIC))) > 0.8


def test_without_places_to_carry_on_the_turn_never_comes() -> None:
    row = fit(own(25), general=general(100))
    assert np.isneginf(row.bias[2])
    assert share(row.scores("turn", draw(100, PLACE))) == 0


@pytest.mark.parametrize("count", [5, 10, 25])
def test_few_examples_are_enough_to_fit(count: int) -> None:
    row = fit(own(count), two_part(20), general(300))
    assert np.isfinite(row.bias).all()
    assert share(row.scores("start", draw(300, TOPIC))) > 0.6


def test_views_and_names_help_where_examples_share_a_form() -> None:
    form = 2 * RNG.normal(size=HIDDEN)
    bare = draw(8, TOPIC * 0.7)
    asked = Evidence(bare + form.astype(np.float32), draw(0))
    hints = Hints(bare, np.arange(8), draw(6, TOPIC) - draw(6))
    traffic = general(300)
    unseen = draw(500, TOPIC * 0.7)
    plain, helped = fit(asked, general=traffic), fit(asked, general=traffic, hints=hints)
    assert share(helped.scores("start", unseen)) > share(plain.scores("start", unseen)) + 0.1


def test_scores_with_their_margin_are_probabilities() -> None:
    row = fit(own(60), general=general(300))
    states = np.concatenate([draw(500, TOPIC * 0.5), draw(500)])
    found = [chances({"e": (row, float(s))})["e"] for s in row.scores("start", states)]
    sure = np.array(found) > 0.9
    assert sure.any()
    assert (np.arange(1000) < 500)[sure].mean() > 0.8


def test_a_row_competes_with_the_background_that_is_there() -> None:
    kinds = Background(np.stack([0.4 * TOPIC, 0.4 * OTHER]).astype(np.float32), np.ones(2, "f4"))

    def routed(row: HeadRow, states: Floats) -> float:
        return share(row.scores("start", states) - kinds.log_odds(states))

    row = fit(own(30), general=general(300), near=draw(60, OTHER), background=kinds)
    assert routed(row, draw(500, TOPIC)) > 0.9
    assert routed(row, draw(500, OTHER)) < 0.1
    assert routed(row, draw(3000)) < 2 * FALSE_ROUTE_RATE
    blind = fit(own(30), general=general(300), near=draw(60, OTHER))
    assert routed(blind, draw(500, TOPIC)) < routed(row, draw(500, TOPIC)) - 0.1


def test_questions_of_other_subjects_are_not_routed_and_keep_no_request_from_waiting() -> None:
    subject = 0.8 * TOPIC + OTHER
    plain = fit(own(30), two_part(60), general(300))
    told = fit(own(30), two_part(60), general(300), taught=draw(200, subject))
    assert share(plain.scores("start", draw(500, subject))) > 0.3
    assert share(told.scores("start", draw(500, subject))) < 0.1
    assert share(told.scores("pending", draw(500, WAITING))) > 0.8


def test_a_prior_moves_a_question_towards_yes_as_far_as_general_traffic_allows() -> None:
    features, yes = np.concatenate([draw(300), draw(60, 0.3 * PLACE)]), np.arange(360) >= 300
    space, mapped = Space.fit(features, yes.astype(np.int64))
    plain, moved, strict = (
        fit_question(space, mapped, yes, ~yes, rate, prior)
        for rate, prior in ((0.4, 0.0), (0.4, 1.0), (0.02, 1.0))
    )

    def says(part: Part, states: Floats) -> float:
        return share(states @ part.weights + part.bias - part.margin)

    assert says(plain, draw(500, 0.3 * PLACE)) < says(moved, draw(500, 0.3 * PLACE))
    assert says(strict, draw(3000)) < 0.06
