"""Expert-token names: expert ↔ slot ↔ token id. No torch: the orchestrator imports this."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SLOTS = 64
"""Expert tokens reserved in an expanded checkpoint unless told otherwise."""


def expert_token(slot: int) -> str:
    """The text of the expert token of `slot`, as it stands in the tokenizer."""
    return f"<|expert_{slot}|>"


@dataclass(frozen=True)
class ExpertVocabulary:
    """The block of expert tokens appended to a meta LLM's vocabulary.

    Attributes:
        first_id: token id of slot 0; it is the size of the vocabulary before expansion.
        slots: how many expert tokens were reserved.
    """

    first_id: int
    slots: int

    def token_id(self, slot: int) -> int:
        """Token id of `slot`. Raises ValueError if there is no such slot."""
        if not 0 <= slot < self.slots:
            raise ValueError(f"slot {slot} is not one of the {self.slots} reserved expert slots")
        return self.first_id + slot

    def slot(self, token_id: int) -> int | None:
        """The slot that `token_id` stands for, or None if it is an ordinary token."""
        slot = token_id - self.first_id
        return slot if 0 <= slot < self.slots else None
