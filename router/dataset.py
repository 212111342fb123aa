"""Routing data: JSON lines of `{"messages": […], "expert": "name" | null}`. No torch."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.encode import Messages
from router.views import last_query


class DataError(ValueError):
    """A data file that cannot be used; the message names the line and the fault."""


@dataclass(frozen=True)
class Query:
    """A conversation up to where the answer begins, and who should answer (None: the meta)."""

    messages: Messages
    expert: str | None

    @property
    def text(self) -> str:
        """The last user turn."""
        return last_query(self.messages)


def read_queries(path: Path) -> list[Query]:
    """Read a data file; other keys are ignored, empty lines too. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    queries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            queries.append(_query(json.loads(line)))
        except json.JSONDecodeError as error:
            raise DataError(f"{path} line {number}: not JSON ({error.msg})") from None
        except DataError as error:
            raise DataError(f"{path} line {number}: {error}") from None
    if not queries:
        raise DataError(f"{path} holds no queries")
    return queries


def _query(item: Any) -> Query:
    if not isinstance(item, dict) or "messages" not in item or "expert" not in item:
        raise DataError('not an object with "messages" and "expert"')
    expert, messages = item["expert"], item["messages"]
    if expert is not None and (not isinstance(expert, str) or not expert.strip()):
        raise DataError('"expert" is a name or null')
    if not isinstance(messages, list) or not messages:
        raise DataError('"messages" is a list of at least one turn')
    for turn in messages:
        if (
            not isinstance(turn, dict)
            or turn.get("role") not in ("system", "user", "assistant")
            or not isinstance(turn.get("content"), str)
        ):
            raise DataError('every turn has a "role" (system, user or assistant) and a "content"')
    if not any(turn["role"] == "user" and turn["content"].strip() for turn in messages):
        raise DataError("there is no user turn with text")
    return Query([{"role": t["role"], "content": t["content"]} for t in messages], expert)


def limit_per_expert(queries: Sequence[Query], limit: int | None, seed: int) -> list[Query]:
    """At most `limit` queries of each expert, drawn with `seed`; queries of no expert all stay."""
    if limit is None:
        return list(queries)
    order = list(range(len(queries)))
    random.Random(seed).shuffle(order)
    left = {query.expert: limit for query in queries if query.expert is not None}
    kept = set()
    for index in order:
        expert = queries[index].expert
        if expert is None:
            kept.add(index)
        elif left[expert] > 0:
            left[expert] -= 1
            kept.add(index)
    return [query for index, query in enumerate(queries) if index in kept]
