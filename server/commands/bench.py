"""`trivium bench …`: run one of the benchmarks that lie beside the source."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import server
from server.commands.client import CommandError

CHECKOUT = Path(server.__file__).resolve().parents[1]


def bench(
    name: str,
    options: Mapping[str, str | int | Path | Sequence[str] | None],
    checkout: Path = CHECKOUT,
) -> int:
    """Run `tests.benchmarks.NAME` with the `options` that are given; its exit status.

    An option with several values is given once for each. Paths are relative to where the command
    was called. Raises CommandError where there is no source, or no torch.
    """
    if not (checkout / "tests" / "benchmarks" / f"{name}.py").is_file():
        raise CommandError(
            "the benchmarks are not here: Trivium was installed without its source;"
            " clone the repository, run `make install` there and use its `trivium`"
        )
    if find_spec("torch") is None:
        raise CommandError("the benchmarks need torch, which is not installed: run `make install`")
    argv = [sys.executable, "-m", f"tests.benchmarks.{name}"]
    for option, value in options.items():
        values = [value] if isinstance(value, str | int | Path) else value or ()
        for one in values:
            argv += [f"--{option}", str(one.resolve() if isinstance(one, Path) else one)]
    return subprocess.run(argv, cwd=checkout, check=False).returncode
