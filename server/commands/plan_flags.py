"""Commands of a plan, ready to paste: workers where it puts them, and a server."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from experts.plan.accelerators import Accelerator
from experts.plan.placement import Load, Placement, Worker

FIRST_PORT = 8101


def flags(worker: Worker, device: Accelerator, load: Load) -> list[str]:
    """vLLM's arguments that make the worker as large as the plan says: for `args:` of an
    expert.yaml, TRIVIUM_META_ARGS or TRIVIUM_BANK_ARGS."""
    found = ["--max-model-len", str(load.tokens(worker.model))]
    found += ["--max-num-seqs", str(load.concurrency)]
    if device.is_cpu:
        return [*found, "--kv-cache-memory-bytes", str(worker.needs.kv_cache)]
    found += ["--gpu-memory-utilization", f"{_share(worker, device):.4f}"]
    if worker.devices > 1:
        found += ["--tensor-parallel-size", str(worker.devices)]
    return found


def commands(placement: Placement, device: Accelerator, load: Load) -> dict[str, str]:
    """A line for the shell for each worker that fits, and one for the server, which has the banks;
    where a folder is not known, its place is in capitals."""
    lines: dict[str, str] = {}
    banks: list[Worker] = []
    for worker in (w for w in placement.workers if w.on):
        if len(worker.models) > 1:
            banks.append(worker)
            continue
        variables = _devices(device, [worker]) | {"TRIVIUM_PORT": str(FIRST_PORT + len(lines))}
        if not lines:
            words = ["trivium", "worker", "meta"]
            variables["TRIVIUM_META"] = str(worker.model.folder or "FOLDER_OF_META")
        else:
            words = ["trivium", "worker", "expert", _pack(worker)]
        lines[worker.name] = _line(variables, [*words, "--", *flags(worker, device, load)])
    variables = {"TRIVIUM_META_URL": f"http://127.0.0.1:{FIRST_PORT}"}
    if banks:
        variables |= _devices(device, banks[:1])
        variables["TRIVIUM_BANK_ARGS"] = json.dumps(_for_all(banks, device, load))
    lines["serve"] = _line(variables, ["trivium", "serve"])
    return lines


def remark(placement: Placement) -> str | None:
    """What of the plan no command carries out."""
    places = {worker.on for worker in placement.workers if len(worker.models) > 1 and worker.on}
    if len(places) < 2:
        return None
    return (
        "The plan has banks on several GPUs, and `trivium serve` starts all of its own on one: give"
        " each GPU a server of its own, or let Ray place the experts (deploy/ray)."
    )


def _for_all(banks: Sequence[Worker], device: Accelerator, load: Load) -> list[str]:
    """One set of arguments for all banks: the shortest context, for longer ones are refused; the
    most memory."""
    shortest = min(banks, key=lambda bank: load.tokens(bank.model))
    largest = max(banks, key=lambda bank: bank.per_device)
    sized = flags(largest, device, load)
    sized[1] = flags(shortest, device, load)[1]
    return sized


def _share(worker: Worker, device: Accelerator) -> float:
    """Rounded up so little that workers which fit side by side still do."""
    return math.ceil(10_000 * worker.per_device / device.memory) / 10_000


def _devices(device: Accelerator, workers: Sequence[Worker]) -> dict[str, str]:
    on = sorted({number for worker in workers for number in worker.on})
    return {} if device.is_cpu else {"CUDA_VISIBLE_DEVICES": ",".join(map(str, on))}


def _pack(worker: Worker) -> str:
    """The folder with the expert's manifest: its checkpoint's, or the one around that."""
    folder = worker.model.folder
    around = [] if folder is None else [folder, Path(folder).parent]
    found = next((f for f in around if (f / "expert.yaml").is_file()), None)
    return str(found or f"FOLDER_OF_{worker.name.upper().replace('-', '_')}")


def _line(variables: dict[str, str], words: Sequence[str]) -> str:
    return " ".join(
        [*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(words)]
    )
