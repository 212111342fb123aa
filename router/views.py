"""Second views of example queries: the same question without the form it was put in.

Ten examples that all share a preamble, or a list of choices, teach the form as much as the
subject. A line that stands in several queries is form. The first line that stands in this query
alone is a view of its own, encoded and fitted beside the whole with half its weight. So are, where
queries are few, the first and the second half of its words: each is about the subject too, and
ends in another way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from router.encode import Messages

MIN_WORDS = 4
VIEW_WEIGHT = 0.5
"""Weight of a view, where the whole query has 1."""


def views(queries: Sequence[str]) -> list[str | None]:
    """For each query its first line that no other query has, or None if that is all of it."""
    seen = Counter(line for query in queries for line in set(_lines(query)))
    return [_first(query, seen) for query in queries]


def halves(text: str) -> list[str]:
    """The first and the second half of a text's words; none of one with few words."""
    words = text.split()
    middle = len(words) // 2
    if len(words) < MIN_WORDS:
        return []
    return [" ".join(words[:middle]), " ".join(words[middle:])]


def last_query(messages: Messages) -> str:
    """The last user turn; "" if there is none."""
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")


def with_query(messages: Messages, text: str) -> Messages:
    """The conversation with `text` as its last user turn."""
    last = max(i for i, turn in enumerate(messages) if turn["role"] == "user")
    return [
        {"role": turn["role"], "content": text} if i == last else turn
        for i, turn in enumerate(messages)
    ]


def _first(query: str, seen: Counter[str]) -> str | None:
    own = (line for line in _lines(query) if seen[line] == 1 and len(line.split()) >= MIN_WORDS)
    view = next(own, None)
    return None if view == query.strip() else view


def _lines(query: str) -> list[str]:
    return [line.strip() for line in query.splitlines() if line.strip()]
