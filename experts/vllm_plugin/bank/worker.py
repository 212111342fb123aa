"""Worker extension of a bank: what `collective_rpc` may call in every rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict


class ExpertStatus(TypedDict):
    """An expert in a bank: bytes of host memory, whether it is resident, tokens computed."""

    bytes: int
    resident: bool
    tokens: int


class BankStatus(TypedDict):
    """A rank's places and experts, by checkpoint; swaps since the start, and seconds of them."""

    places: int
    swaps: int
    swap_seconds: float
    experts: dict[str, ExpertStatus]


class BankWorker:
    """Mixed into vLLM's worker class by `--worker-extension-cls`."""

    def trivium_bank_read(self, checkpoint: str) -> None:
        """Start to read an expert into host memory, beside the steps."""
        self._trivium_bank().shelf.start_reading(Path(checkpoint))

    def trivium_bank_outcome(self, checkpoint: str) -> tuple[bool, str, int]:
        """Whether that has ended; what went wrong, or ""; the bytes that the expert takes."""
        outcome: tuple[bool, str, int] = self._trivium_bank().shelf.outcome(Path(checkpoint))
        return outcome

    def trivium_bank_forget(self, checkpoint: str) -> None:
        """Drop an expert that was read and has not become an adapter."""
        self._trivium_bank().forget(Path(checkpoint))

    def trivium_bank_status(self) -> BankStatus:
        """What is in the bank."""
        status: BankStatus = self._trivium_bank().status()
        return status

    def _trivium_bank(self) -> Any:
        return self.model_runner.get_model().bank  # type: ignore[attr-defined]
