"""A run's folder beside its result: what was asked for, and the checkpoints to go on from."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from pathlib import Path
from typing import IO, Any

from experts.errors import ExpertsError
from experts.training.trainer import COMPLETE

PLAN_FILE = "plan.json"
LOCK_FILE = "lock"
"""Held by the process that trains; the system lets go of it when that ends in any way."""


class RunError(ExpertsError):
    """A folder that cannot hold this run."""


class RunFolder:
    """`plan.json` and the Trainer's `checkpoint-N` folders."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None

    def plan(self) -> dict[str, Any] | None:
        """The settings the run was begun with; None if none was."""
        try:
            plan: dict[str, Any] = json.loads((self.path / PLAN_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / PLAN_FILE} cannot be read: {error}") from None
        return plan

    def begin(self, plan: dict[str, Any]) -> None:
        """Note the plan, or check that it is the one of the run that lies here. A run that has
        saved nothing yet may begin with another. Raises RunError, also while another process
        trains here."""
        before = self.plan()
        if before is None and self.path.exists() and any(map(_not_ours, self.path.iterdir())):
            raise RunError(
                f"{self.path} is not empty and holds no training run: delete it, or choose another"
            )
        self._hold()
        before = self.plan()
        now: dict[str, Any] = json.loads(json.dumps(plan))
        if before == now:
            return
        if before is not None and self.last_checkpoint() is not None:
            raise RunError(
                f"{self.path} holds a run with other settings ({_differences(before, now)});"
                " repeat the same command to go on with it, or delete the folder"
            )
        part = self.path / (PLAN_FILE + ".part")
        part.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
        part.replace(self.path / PLAN_FILE)

    def _hold(self) -> None:
        """Take the lock. Of the processes of one distributed run, the first has it for all."""
        if self._lock is not None or os.environ.get("RANK", "0") != "0":
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = (self.path / LOCK_FILE).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise RunError(
                f"another process trains in {self.path}: wait until it has ended, or choose another"
                " folder"
            ) from None
        self._lock = lock

    def end(self) -> None:
        """This process trains here no longer."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end; deletes those that were not."""
        found = []
        for folder in self.path.glob("checkpoint-*"):
            number = re.fullmatch(r"checkpoint-(\d+)", folder.name)
            if number and (folder / COMPLETE).exists():
                found.append((int(number[1]), folder))
            elif number:
                shutil.rmtree(folder, ignore_errors=True)  # another process may be first
        return max(found)[1] if found else None


def _not_ours(path: Path) -> bool:
    return path.name != LOCK_FILE


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed)


def steps_of(checkpoint: Path) -> int:
    """The optimizer steps taken before `checkpoint`."""
    return int(checkpoint.name.rpartition("-")[2])
