"""`trivium bench bank`: many experts in one vLLM engine, against one process for each.

Real servers, started as the product starts them, random models, streams over HTTP. Four parts:
`compare` with one process each, `curve` of a step's time by the experts in a batch, `swaps` where
there are fewer places than experts, `adding` experts while others are served.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from experts import kernels
from tests.benchmarks import bank_changes, bank_speed, bank_tables, report
from tests.benchmarks.bank_servers import ServerFailed
from tests.benchmarks.bank_settings import DEFAULTS, Bench, Settings
from tests.benchmarks.load import Load, LoadError
from tests.benchmarks.random_model import SIZES
from tests.benchmarks.ternary import vllm_version

PARTS = {
    "compare": bank_speed.compare,
    "curve": bank_speed.curve,
    "swaps": bank_changes.swaps,
    "adding": bank_changes.adding,
}


async def measure(settings: Settings, parts: Sequence[str]) -> dict[str, Any]:
    """The figures of `parts`. Raises ServerFailed, LoadError."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    with tempfile.TemporaryDirectory(prefix="trivium-bench-") as folder:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            load = Load(session, SIZES[settings.size].model.vocabulary)
            bench = Bench(settings, Path(folder), session, load)
            return {part: await PARTS[part](bench) for part in parts}


def run(settings: Settings, parts: Sequence[str], json_out: Path | None) -> None:
    """Measure, print the tables, write figures and picture."""
    machine = report.describe_cpu()
    model = SIZES[settings.size].model
    about = {
        "benchmark": "bank",
        "machine": machine,
        "kernel": kernels.active(),
        "vllm": vllm_version(),
        "model": {
            "name": model.name,
            "ternary_weights": model.linear_weights,
            "other_weights": model.other_weights,
        },
        "settings": dataclasses.asdict(settings),
    }
    try:
        result = about | asyncio.run(measure(settings, parts))
    except (ServerFailed, LoadError) as error:
        sys.exit(f"error: {error}")
    print(f"{machine['cpu']}, {machine['cores']} cores, {' '.join(machine['isa'])}")
    print(f"{model.name}: {model.linear_weights / 1e6:.0f}M ternary weights,", end=" ")
    print(f"{model.other_weights / 1e6:.0f}M others; kernel {about['kernel']}")
    bank_tables.tables(result)
    if json_out is not None:
        report.write_json(json_out, result)
        report.picture_beside(json_out, "bank", result, "bank_pictures")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here, the picture beside it")
    parser.add_argument("--size", choices=sorted(DEFAULTS), default="135m", help="of the models")
    parser.add_argument("--only", choices=sorted(PARTS), help="measure this part alone")
    for field in dataclasses.fields(Settings)[1:]:
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=_at_least_one)
    options = parser.parse_args(arguments)
    names = [field.name for field in dataclasses.fields(Settings)[1:]]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    settings = dataclasses.replace(DEFAULTS[options.size], **given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    run(settings, [options.only] if options.only else list(PARTS), options.json)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    main()
