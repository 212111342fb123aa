"""What a benchmark leaves behind: a table in the terminal, a JSON file. Runs without rich."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ISA_FLAGS = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16"),
)
"""Of /proc/cpuinfo, those that decide which kernels run."""
DEFAULT_CACHE = 64 << 20


def describe_cpu() -> dict[str, Any]:
    """Model, cores this process may use, instruction sets, last-level cache, versions."""
    import torch

    text = _read(Path("/proc/cpuinfo"))
    model = re.search(r"model name\s*:\s*(.+)", text)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = flags[1].split() if flags else []
    return {
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "cores": cores(),
        "isa": [flag for flag in ISA_FLAGS if flag in present],
        "cache_bytes": last_level_cache(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "torch": torch.__version__,
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def describe_gpu(device: Any) -> dict[str, Any]:
    """Name, memory, L2 cache and driver of the GPU `device`, and torch's versions."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    except OSError:
        answer = ""
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cache_bytes": getattr(properties, "L2_cache_size", 0),
        "driver": answer.partition("\n")[0].strip() or "unknown",
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
    }


def cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def last_level_cache() -> int:
    """Bytes of the largest cache the system tells of, else 64 MiB."""
    caches = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    sizes = [re.fullmatch(r"(\d+)([KMG])", _read(path).strip()) for path in caches]
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return max((int(s[1]) * units[s[2]] for s in sizes if s), default=DEFAULT_CACHE)


def progress(text: str) -> None:
    """What is being done now, on standard error."""
    print(text, file=sys.stderr, flush=True)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are figures."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _plain_table(title, columns, rows)
        return
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 200  # do not cut columns in a file
    Console(highlight=False, width=width).print(table)


def write_json(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def picture_beside(
    path: Path, drawing: str, result: dict[str, Any], module: str = "pictures"
) -> None:
    """Draw `result` into the PNG beside `path` with a function of a `module` beside this one."""
    try:
        pictures = import_module(f"tests.benchmarks.{module}")
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    target = path.with_suffix(".png")
    getattr(pictures, drawing)(result).savefig(target, dpi=120, bbox_inches="tight")
    print(f"wrote {target}")


def _plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    print(f"\n{title}")
    for first, *rest in lines:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
