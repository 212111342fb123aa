"""Is the planner's memory true? Workers started as the product starts them, predicted and measured.

The default meta LLM where it was fetched, the shipped expert, random ternary ones, a bank, and as
many processes. What the planner takes a process and a tokenizer for is not fitted to these:
`--constants` measures it with other models. Nothing else that has loaded torch may run meanwhile:
pages of libraries that processes share count a part in each.

    python -m tests.benchmarks.plan --json tests/benchmarks/results/plan.json
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from experts.plan.accelerators import CPU_PROCESS_BYTES, CPU_SHARED_BYTES, Accelerator
from experts.plan.memory import TOKENIZER_BYTES, kv_bytes_per_token, together, worker_needs
from experts.plan.models import parse_model
from experts.starter import arithmetic_folder
from server.settings import Settings as ServerSettings
from server.workers.vllm_command import this_machine
from tests.benchmarks import report
from tests.benchmarks.bank_models import write_experts, write_tokenizer
from tests.benchmarks.bank_servers import ServerFailed, Side, open_bank, open_meta, open_singles
from tests.benchmarks.bank_settings import DEFAULTS, Bench
from tests.benchmarks.load import Load, LoadError
from tests.benchmarks.random_model import SIZES, Size, write_model
from tests.benchmarks.ternary import vllm_version

META = "SmolLM2-135M-Instruct-experts*/config.json"
BANK = 8
"""Experts of the bank, and processes beside it."""
FEW_WORDS = 1_000
Opened = AbstractAsyncContextManager[Side]


@dataclasses.dataclass(frozen=True)
class Case:
    """Servers to start: `open` starts them with the logs in a folder."""

    name: str
    predicted: int
    open: Callable[[Path], Opened]


def device(process: int = CPU_PROCESS_BYTES) -> Accelerator:
    """This machine as far as memory goes: nothing is timed."""
    wide = this_machine().bf16
    memory = report.describe_cpu()["memory_bytes"]
    kept = 2 if wide else 4
    return Accelerator("cpu", memory, 1, 1, 1, "", process, kept, True, CPU_SHARED_BYTES)


def predicted(folders: Sequence[Path], cache: int, machine: Accelerator) -> int:
    """Bytes of a server with a KV cache of `cache` bytes: of one model, or of a bank of several
    with one embedding."""
    models = [parse_model(str(folder), folder.name) for folder in folders]
    tokens = cache // kv_bytes_per_token(models[0], machine)
    return worker_needs(models, machine, tokens, 64, shared_table=True).total


def cases(bench: Bench) -> list[Case]:
    """What is compared; random checkpoints are written to the benchmark's folder."""
    cache, machine = bench.settings.kv_mib << 20, device()

    def single(folder: Path, name: str) -> Case:
        def start(logs: Path) -> Opened:
            return open_singles(bench, [folder], logs)

        return Case(name, predicted([folder], cache, machine), start)

    meta = meta_folder()
    experts = write_experts("135m", bench.folder / "experts", BANK, shared=True)
    write_model(SIZES["1b"], "ternary", bench.folder / "1b")
    write_tokenizer(bench.folder / "1b", SIZES["1b"].model.vocabulary)
    one = single(experts[0], "ternary, 135M")
    return [
        Case(
            "the meta worker, SmolLM2-135M-Instruct",
            predicted([meta], cache, machine),
            lambda logs: open_meta(bench, meta, logs),
        ),
        single(arithmetic_folder() / "checkpoint", "a starter expert"),
        one,
        single(bench.folder / "1b", "ternary, 1.1B"),
        Case(
            f"a bank of {BANK} experts of 135M, one embedding",
            predicted(experts, cache, machine),
            lambda logs: open_bank(bench, experts, BANK, logs),
        ),
        Case(
            f"{BANK} processes of one expert each",
            together([one.predicted] * BANK, machine),
            lambda logs: open_singles(bench, experts, logs),
        ),
    ]


async def compare(bench: Bench) -> list[dict[str, Any]]:
    """A row for each case. Raises ServerFailed, LoadError, aiohttp.ClientError."""
    rows = []
    for number, case in enumerate(cases(bench)):
        report.progress(f"starting {case.name}")
        async with case.open(bench.logs(f"plan-{number}")) as side:
            pss = side.memory().pss
        row = {"model": case.name, "predicted": case.predicted, "measured": pss}
        rows.append({**row, "ratio": case.predicted / pss})
    return rows


async def constants(bench: Bench) -> dict[str, int]:
    """`CPU_PROCESS_BYTES` and `TOKENIZER_BYTES`: what two small random models take beyond their
    weights and caches, one with few words, one with the meta LLM's tokenizer. `CPU_SHARED_BYTES`:
    what two servers of the first one take less than twice one."""
    meta = meta_folder()
    small = SIZES["small"].model
    many = parse_model(str(meta), "meta").vocabulary
    rest, alone = {}, 0
    for words in (FEW_WORDS, many):
        folder = bench.folder / f"words-{words}"
        write_model(Size(replace(small, vocabulary=words, tied=True)), "ternary", folder)
        if words == FEW_WORDS:
            write_tokenizer(folder, words)
        else:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                (folder / name).write_bytes((meta / name).read_bytes())
        report.progress(f"starting a model of {words} words")
        async with open_singles(bench, [folder], bench.logs(folder.name)) as side:
            pss = side.memory().pss
        alone = pss if words == FEW_WORDS else alone
        weights = predicted([folder], bench.settings.kv_mib << 20, device(0))
        rest[words] = pss - (weights - words * TOKENIZER_BYTES)
    each = (rest[many] - rest[FEW_WORDS]) / (many - FEW_WORDS)
    few = bench.folder / f"words-{FEW_WORDS}"
    twin = bench.folder / "twin"
    shutil.copytree(few, twin)
    report.progress("starting two")
    async with open_singles(bench, [few, twin], bench.logs("two")) as side:
        both = side.memory().pss
    return {
        "CPU_SHARED_BYTES": 2 * alone - both,
        "CPU_PROCESS_BYTES": round(rest[FEW_WORDS] - FEW_WORDS * each),
        "TOKENIZER_BYTES": round(each),
    }


def meta_folder() -> Path:
    """The default meta LLM with its expert tokens; ends the program where it was not made ready."""
    found = sorted(ServerSettings().models_dir.glob(META))
    if not found:
        sys.exit("error: the meta LLM is not there: start `trivium serve` once, which fetches it")
    return found[0].parent


async def in_bench(work: Callable[[Bench], Any], kv_mib: int) -> Any:
    timeout = aiohttp.ClientTimeout(total=None)
    settings = replace(DEFAULTS["small"], kv_mib=kv_mib)
    with tempfile.TemporaryDirectory(prefix="trivium-bench-") as folder:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            load = Load(session, 700)  # ids that the smallest vocabulary has
            return await work(Bench(settings, Path(folder), session, load))


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the comparison."""
    lines = []
    for row in rows:
        sizes = [f"{row[name] / (1 << 30):.2f}" for name in ("predicted", "measured")]
        lines.append([row["model"], *sizes, f"{row['ratio']:.2f}"])
    report.show_table("Memory (PSS), GiB", ["worker", "predicted", "measured", "ratio"], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--kv-mib", type=int, default=256, help="KV cache of each worker")
    parser.add_argument("--constants", action="store_true", help="measure the planner's constants")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    try:
        found = asyncio.run(in_bench(constants if given.constants else compare, given.kv_mib))
    except (ServerFailed, LoadError, aiohttp.ClientError) as error:
        sys.exit(f"error: {error}")
    if given.constants:
        for name, value in found.items():
            print(f"{name} = {value:_}")
    else:
        show(found)
        about = {"benchmark": "plan", "machine": report.describe_cpu(), "vllm": vllm_version()}
        if given.json is not None:
            report.write_json(given.json, {**about, "kv_mib": given.kv_mib, "workers": found})


if __name__ == "__main__":
    main()
