"""What is encoded for a joint fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from router.dataset import DataError, Query
from router.encode import Messages
from router.head import Floats
from router.training import FEW, Progress, encode_training


class Lengths:
    """An encoder whose one feature is the length of the last turn."""

    size = 1

    def encode(self, prompts: Sequence[Messages], progress: Progress) -> Floats:
        return np.array([[len(prompt[-1]["content"])] for prompt in prompts], np.float32)


def ask(text: str, expert: str | None) -> Query:
    return Query([{"role": "user", "content": text}], expert)


def test_queries_views_names_and_general_queries_have_their_places() -> None:
    queries = [ask("one two three four\nmore", "b"), ask("x", None), ask("yy", "a")]
    queries += [ask("zzz", "b"), ask("w", None), ask("v", "a")]
    data = encode_training(queries, Lengths(), lambda done, of: None)
    assert data.labels.tolist() == [2, 0, 1, 2, 0, 1]
    assert data.features[:, 0].tolist() == [len(query.text) for query in queries]
    views = ["one two three four", "one two", "three four"]
    assert data.views[:3, 0].tolist() == [len(view) for view in views]
    assert data.view_of.tolist() == [0, 0, 0, *range(len(queries))], "each is framed once"
    assert data.shifts.shape[0] == 2
    assert len(data.general) >= 300


def test_halves_are_encoded_where_queries_are_few_only() -> None:
    many = [ask(f"what is number {n}", "a") for n in range(FEW)]
    few = [ask("who wrote this great play", "b"), ask("who wrote this other play", "b")]
    none = [ask(f"one two three four {n}", None) for n in range(FEW)]
    data = encode_training(many + few + none, Lengths(), lambda done, of: None)
    assert data.view_of[:4].tolist() == [FEW, FEW, FEW + 1, FEW + 1]
    assert data.view_of[4:].tolist() == list(range(2 * FEW + 2)), "each is framed once"


def test_an_expert_with_one_query_is_refused() -> None:
    queries = [ask("a", "x"), ask("b", None), ask("c", None)]
    with pytest.raises(DataError, match="'x' has 1 queries"):
        encode_training(queries, Lengths(), lambda done, of: None)
