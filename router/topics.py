"""What an expert's name says before any example does.

A few questions are put with the expert's subject in them, and the same ones with many other
subjects. The difference between its states and the average of all is what the subject alone
changes; it stands for NAME_WORTH example queries. With 10 examples it is worth about two points
of accuracy, with 100 nothing (tests/benchmarks/routing_representations.py).
"""

from __future__ import annotations

import numpy as np

from router.head import Floats

NAME_WORTH = 5.0
"""How many example queries a name weighs as much as."""

_QUESTIONS = (
    "What is {}?",
    "Ask me a question about {}.",
    "I have a question about {}.",
    "Explain an important idea in {}.",
    "The following is a question about {}.",
    "Which of the following is true in {}?",
)
_SUBJECTS = (
    "cooking|football|medicine|poetry|gardening|music|programming|law|travel|chemistry|economics|"
    "philosophy|cars|fashion|pets|biology|marketing|accounting|psychology|nutrition|film|religion|"
    "weather|chess"
)


def topic_questions(name: str) -> list[str]:
    """Questions that name the subject of the expert `name`."""
    subject = name.replace("_", " ").replace("-", " ").strip()
    return [question.format(subject) for question in _QUESTIONS]


def common_questions() -> list[list[str]]:
    """The same questions with many subjects, one list a subject."""
    return [topic_questions(subject) for subject in _SUBJECTS.split("|")]


def shifts_from(named: Floats, subjects: Floats) -> Floats:
    """What one subject changes, from the states of its questions `[questions, features]`, and
    their mean over the common subjects."""
    count = len(_SUBJECTS.split("|"))
    return (named - subjects) * np.float32(count / (count + 1))


def topic_shifts(named: Floats, common: Floats) -> Floats:
    """What each subject changes.

    `named` `[experts, questions, features]` are the states of each expert's topic_questions,
    `common` `[subjects, questions, features]` those of common_questions. Returns the shape of
    `named`.
    """
    everything = np.concatenate([named, common])
    shifts: Floats = named - everything.mean(axis=0, keepdims=True)
    return shifts
