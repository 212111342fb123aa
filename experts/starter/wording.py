"""How people type: what happens to any question on its way to a keyboard."""

from __future__ import annotations

import re
from random import Random


def disturb(question: str, random: Random) -> str:
    """Small accidents of typing and politeness that leave the question's meaning alone."""
    chance = random.random()
    if chance < 0.06:
        return question.lower()
    if chance < 0.1:
        return question.rstrip("?. ") + random.choice(
            (" please", ", please?", " pls", " thanks", "??")
        )
    if chance < 0.13:
        return random.choice(("Please: ", "Hello, ", "ok so ", "Hi, ", "Question: ")) + question
    if chance < 0.16:
        return question + random.choice((" ", "\n", " Thanks!", " Show the answer.", " :)"))
    if chance < 0.18 and (spot := re.search(r"[a-z]{4,}", question)):
        cut = random.randrange(spot.start() + 1, spot.end() - 1)
        return question[:cut] + question[cut + 1 :]
    return question
