"""What the bank's benchmark measures: sizes of models and loads, and where it works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.benchmarks.bank_models import write_experts
from tests.benchmarks.load import Load
from tests.benchmarks.random_model import SIZES

SETS = {"shared": "one embedding for all", "own": "different in everything"}
"""The two sets of experts."""


@dataclass(frozen=True)
class Settings:
    """`experts` are compared with as many processes; of `registered`, `resident` can be in one
    step where swaps are measured. `tokens` are of each stream, `requests` of the load with swaps.
    `kv_mib` is the KV cache of each server, of both sides; eight with a GiB each, which is what
    the product gives them, do not fit into 24 GiB."""

    size: str
    experts: int = 8
    streams: int = 16
    tokens: int = 64
    rounds: int = 5
    registered: int = 32
    resident: int = 4
    requests: int = 128
    additions: int = 5
    kv_mib: int = 256

    @property
    def loads(self) -> list[int]:
        """Numbers of concurrent streams."""
        return sorted({1, min(4, self.streams), self.streams})

    @property
    def distinct(self) -> list[int]:
        """Numbers of experts in one batch: powers of two, up to one for each stream."""
        return [2**n for n in range(self.streams.bit_length()) if 2**n <= self.streams]


DEFAULTS = {
    "135m": Settings("135m"),
    "small": Settings(
        "small",
        experts=2,
        streams=4,
        tokens=16,
        rounds=3,
        registered=6,
        resident=2,
        requests=24,
        additions=2,
    ),
}


@dataclass(frozen=True)
class Bench:
    """One run of the benchmark: its settings, a folder, a session, and the load's random state."""

    settings: Settings
    folder: Path
    session: aiohttp.ClientSession
    load: Load

    def experts(self, kind: str, count: int) -> list[Path]:
        """The folders of `count` experts of one of SETS, made when they are first wanted."""
        return write_experts(self.settings.size, self.folder / kind, count, kind == "shared")

    def logs(self, name: str) -> Path:
        """A new folder for what a side's servers write."""
        folder = self.folder / f"logs-{name}"
        folder.mkdir()
        return folder

    @property
    def context(self) -> int:
        """Tokens of the longest sequence."""
        return SIZES[self.settings.size].context
