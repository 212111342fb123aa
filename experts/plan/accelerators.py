"""What accelerators have: memory, bandwidth and arithmetic, from their makers' data sheets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import psutil

from experts.plan.quantities import GIB, PlanError

GPU_PROCESS_BYTES = int(1.5 * GIB)
"""Of each vLLM process on a GPU: CUDA context and libraries (about 0.5 GiB), CUDA graphs,
workspaces. An estimate; on GPUs nothing was measured for it."""
CPU_PROCESS_BYTES = 1_338_000_000
"""Of each vLLM server on a CPU: Python, torch, vLLM and its API, without a tokenizer. Proportional
set size, as `python -m tests.benchmarks.plan --constants` measures it with a small random model,
less its weights and KV cache. Other models are predicted from it."""

CPU_SHARED_BYTES = 221_000_000
"""Of these, pages of libraries that servers of one machine have in common; measured likewise, with
two at once."""

TRIES = 60
MOST_NUMBERS = 1 << 26
"""Of 8 bytes, that the bandwidth is measured with."""


@dataclass(frozen=True)
class Accelerator:
    """One device. Dense peaks without sparsity: `bandwidth` in bytes/s, `bf16` in FLOP/s, `int8`
    in operations/s, as wide as products with ternary weights are computed. `kept` is what bytes
    a weight or a state that is not ternary takes; `packs_tables`: embedding and head are held a
    second time, in the layout of oneDNN."""

    name: str
    memory: int
    bandwidth: float
    bf16: float
    int8: float
    source: str
    process_bytes: int = GPU_PROCESS_BYTES
    kept: int = 2
    packs_tables: bool = False
    shared_bytes: int = 0
    """Of `process_bytes`, what all processes have in common."""

    @property
    def is_cpu(self) -> bool:
        return self.name == "cpu"


def _nvidia(name: str, gb: float, tb_s: float, bf16: float, int8: float, sheet: str) -> Accelerator:
    """`gb` and `tb_s` in powers of 1000, as printed; bf16 and int8 in tera, dense."""
    return Accelerator(name, int(gb * 1e9), tb_s * 1e12, bf16 * 1e12, int8 * 1e12, sheet)


TABLE = {
    gpu.name: gpu
    for gpu in (
        _nvidia("A100-40G", 40, 1.555, 312, 624, "NVIDIA A100 data sheet, SXM, 2021"),
        _nvidia("A100", 80, 2.039, 312, 624, "NVIDIA A100 data sheet, SXM, 2021"),
        _nvidia("H100", 80, 3.35, 989.4, 1978.9, "NVIDIA H100 data sheet, SXM"),
        _nvidia("H100-PCIE", 80, 2.0, 756, 1513, "NVIDIA H100 data sheet, PCIe"),
        _nvidia("H200", 141, 4.8, 989.4, 1978.9, "NVIDIA H200 data sheet, SXM"),
        _nvidia("B200", 180, 8.0, 2250, 4500, "NVIDIA DGX B200 data sheet, an eighth"),
        _nvidia("L4", 24, 0.3, 121, 242, "NVIDIA L4 data sheet"),
        _nvidia("L40S", 48, 0.864, 362, 733, "NVIDIA L40S data sheet"),
        _nvidia("A10", 24, 0.6, 125, 250, "NVIDIA A10 data sheet"),
        _nvidia("RTX-4090", 24, 1.008, 165.2, 660.6, "NVIDIA Ada whitepaper, float32 accumulation"),
    )
}


def accelerator(text: str, measure: bool = True) -> Accelerator:
    """The device of that name, "cpu" for this machine; "H100:64G" has another memory, in powers
    of 1000. `measure`: whether this machine's speed is wanted too. Raises PlanError."""
    name, _, memory = text.partition(":")
    if name.lower() == "cpu":
        found = this_machine(measure)
    elif name.upper() in TABLE:
        found = TABLE[name.upper()]
    else:
        raise PlanError(f"no accelerator is called {name!r}; there are cpu, {', '.join(TABLE)}")
    if not memory:
        return found
    try:
        size = float(memory.upper().removesuffix("B").removesuffix("G"))
    except ValueError:
        raise PlanError(f"{text!r}: write the memory in GB, as in H100:64G") from None
    return replace(found, memory=int(size * 1e9))


def this_machine(measure: bool = True) -> Accelerator:
    """The CPU here; bandwidth and arithmetic are measured now, in a moment, with NumPy, or not a
    number."""
    bf16 = _has_bf16()
    flops = _measured_flops() if measure else float("nan")
    return Accelerator(
        name="cpu",
        memory=psutil.virtual_memory().total,
        bandwidth=_measured_bandwidth() if measure else float("nan"),
        bf16=flops,
        int8=4 * flops,  # of float32's lanes, four hold a byte each
        source="measured on this machine",
        process_bytes=CPU_PROCESS_BYTES,
        kept=2 if bf16 else 4,
        packs_tables=True,
        shared_bytes=CPU_SHARED_BYTES,
    )


def _has_bf16() -> bool:
    """Whether workers are started in bf16 here, as `server.workers.vllm_command` decides."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return "avx512" in file.read()
    except OSError:
        return os.uname().sysname == "Darwin"


def _measured_bandwidth() -> float:
    """Bytes/s of reading an array larger than most caches, a thread for each core."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = threads or 1
    numbers = min((1 << 23) * threads, MOST_NUMBERS)
    parts = np.array_split(np.ones(numbers, dtype=np.float64), threads)
    with ThreadPoolExecutor(threads) as pool:
        return sum(part.nbytes for part in parts) / _best(lambda: list(pool.map(np.max, parts)))


def _measured_flops() -> float:
    """FLOP/s of a float32 product, all threads that NumPy takes."""
    matrix = np.ones((512, 512), dtype=np.float32)
    return 2 * 512**3 / _best(lambda: matrix @ matrix)


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of many short times: one that nothing else has interrupted."""
    seconds = []
    for _ in range(TRIES):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
