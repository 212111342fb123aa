"""`trivium router …`: run a job of `router.job` in a process of its own, where torch may live."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from server.commands.client import CommandError
from server.commands.configuration import load_settings

Options = dict[str, str | int | float | Path | None]


def run(job: str, options: Options) -> int:
    """Run `router.job JOB` with the options that are given; its exit status.

    Raises CommandError where there is no torch.
    """
    if find_spec("torch") is None:
        raise CommandError("this needs torch, which is not installed: run `make install`")
    argv = [sys.executable, "-P", "-m", "router.job", job]
    argv += ["--cache", str(load_settings().cache_dir)]
    for option, value in options.items():
        if value is not None:
            argv += [f"--{option}", str(value)]
    return subprocess.run(argv, check=False).returncode
