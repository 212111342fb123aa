"""Queries as people put them: with a greeting, with thanks, after talk about something else.

The meta LLM's state where an answer begins is about all that stands before it. Rows that were
fitted on bare queries alone miss many that follow "Hi, can you help me with this?" or another
question's answer. So views of queries (`router/views.py`) are also made behind such words, and so
are general queries, or the words themselves would speak for an expert.
"""

from __future__ import annotations

from router.encode import Messages
from router.views import last_query, with_query

BEFORE = (
    "I have a question for you. ",
    "Hi! Can you help me with this? ",
    "Please answer: ",
    "Here is something I would like to know: ",
    "Hello, I am stuck here.\n\n",
)
AFTER = (
    "\nThanks in advance!",
    "\nPlease explain.",
    "\nWhat is the answer?",
    "\nLet me know what you think.",
)
EXCHANGES = (
    ("Hello!", "Hello! How can I help you today?"),
    ("What is a fox?", "A fox is a small, omnivorous mammal of the dog family."),
    (
        "Tell me a joke.",
        "Why did the scarecrow win an award? Because he was outstanding in his field.",
    ),
    ("Who are you?", "I am an assistant that answers questions."),
    ("Suggest a name for a boat.", 'How about "Second Wind"?'),
)
WAYS = 3
"""Words before a query, words after it, an exchange before it."""


def framed(query: Messages, number: int) -> Messages:
    """The conversation with words before its last user turn, with words after it, or behind an
    exchange about something else; by turns, as `number` goes up."""
    number, way = divmod(number, WAYS)
    if way == 0:
        return with_query(query, BEFORE[number % len(BEFORE)] + last_query(query))
    if way == 1:
        return with_query(query, last_query(query) + AFTER[number % len(AFTER)])
    asked, answered = EXCHANGES[number % len(EXCHANGES)]
    first = int(query[0]["role"] == "system")
    between = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*query[:first], *between, *query[first:]]
