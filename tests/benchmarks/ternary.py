"""`trivium bench ternary`: the same random model in full precision and ternary, under vLLM.

One variant after another, each in a process of its own, on all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experts import kernels
from tests.benchmarks import report
from tests.benchmarks.random_model import SIZES, Precision, write_model

ROOT = Path(__file__).parents[2]
DECODE = {"1b": ("1:64", "16:32"), "small": ("1:8", "16:4")}
"""Streams and tokens of each."""
ROUNDS = {"1b": 3, "small": 1}
GIB, MIB = 1 << 30, 1 << 20


@dataclass(frozen=True)
class Variant:
    """A checkpoint and the dtype in which vLLM computes all that is not ternary."""

    precision: Precision
    dtype: str

    @property
    def name(self) -> str:
        if self.precision == "ternary":
            return f"ternary, else {self.dtype}"
        return self.dtype


def variants(native_bf16: bool) -> list[Variant]:
    """What is compared: bf16 against ternary, and the same in float32 on a CPU that has to
    emulate bf16, where float32 is the honest full precision."""
    dtypes = ["bfloat16"] if native_bf16 else ["bfloat16", "float32"]
    return [Variant(precision, dtype) for precision in PRECISIONS for dtype in dtypes]


PRECISIONS: tuple[Precision, ...] = ("bf16", "ternary")


def measure(size: str, variant: Variant, folder: Path) -> dict[str, Any]:
    """Decode speed and memory of the checkpoint in `folder` (`engine.Decode`, `engine.Memory`)."""
    out = folder.with_suffix(".json")
    argv = [sys.executable, "-m", "tests.benchmarks.engine", str(folder), str(out)]
    argv += ["--dtype", variant.dtype, "--rounds", str(ROUNDS[size]), "--decode", *DECODE[size]]
    log = folder.with_suffix(".log")
    with log.open("wb") as stream:
        ran = subprocess.run(
            argv, cwd=ROOT, env=_environment(), stdout=stream, stderr=subprocess.STDOUT, check=False
        )
    if ran.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        sys.exit(
            "\n".join([*tail, f"vLLM failed on the variant {variant.name}; its log ends above"])
        )
    return dict(json.loads(out.read_text(encoding="utf-8")))


def tables(result: dict[str, Any]) -> None:
    """Print tokens/s and memory of each variant; "times full" compares with full precision in the
    same dtype."""
    rows, plain = result["variants"], result["variants"][0]
    full = {row["dtype"]: row for row in rows if row["precision"] == "bf16"}
    streams = [case["streams"] for case in plain["decode"]]
    columns = ["variant"]
    for count in streams:
        columns += [
            f"{count} stream{'s' if count > 1 else ''}: tokens/s",
            "times bf16",
            "times full",
        ]
    columns += ["ternary layers MiB", "of bf16", "process GiB", "peak GiB"]
    lines = []
    for row in rows:
        line = [row["name"]]
        for i in range(len(streams)):
            speed = row["decode"][i]["tokens_s"]
            line.append(f"{speed:.2f}")
            for other in (plain, full[row["dtype"]]):
                line.append(f"{speed / other['decode'][i]['tokens_s']:.2f}×")
        memory = row["memory"]
        line += [f"{row['linear_bytes'] / MIB:.0f}", f"{row['linear_of_bf16']:.4f}×"]
        line += [f"{memory['steady'] / GIB:.2f}", f"{memory['peak'] / GIB:.2f}"]
        lines.append(line)
    report.show_table("\nDecode under vLLM, prefill not counted", columns, lines)


def run(size: str, json_out: Path | None) -> None:
    """Make the checkpoints, measure every variant, print the table, write figures and picture."""
    machine = report.describe_cpu()
    compared = variants("avx512_bf16" in machine["isa"] or "bf16" in machine["isa"])
    rows = []
    with tempfile.TemporaryDirectory(prefix="trivium-bench-") as name:
        for precision in PRECISIONS:
            folder = Path(name) / precision
            report.progress(f"writing the {precision} checkpoint ({size})")
            write_model(SIZES[size], precision, folder)
            for variant in (v for v in compared if v.precision == precision):
                report.progress(f"measuring {variant.name}")
                rows.append(_row(variant, measure(size, variant, folder)))
    model = SIZES[size].model
    result = {
        "benchmark": "ternary",
        "machine": machine,
        "kernel": kernels.active(),
        "vllm": vllm_version(),
        "model": {
            "name": model.name,
            "ternary_weights": model.linear_weights,
            "other_weights": model.other_weights,
        },
        "variants": rows,
    }
    print(f"{machine['cpu']}, {machine['cores']} cores, {' '.join(machine['isa'])}")
    print(f"{model.name}: {model.linear_weights / 1e6:.0f}M ternary weights,", end=" ")
    print(f"{model.other_weights / 1e6:.0f}M others; kernel {result['kernel']}")
    tables(result)
    if json_out is not None:
        report.write_json(json_out, result)
        report.picture_beside(json_out, "ternary", result)


def _row(variant: Variant, measured: dict[str, Any]) -> dict[str, Any]:
    """A full-precision variant's layers are what its weights take; vLLM may have moved them out
    of the parameters, into a layout of its own."""
    memory = measured["memory"]
    width = 2 if variant.dtype == "bfloat16" else 4
    plain = memory["linear_bf16"]
    held = memory["linear"] if variant.precision == "ternary" else plain * width // 2
    return {
        "name": variant.name,
        "precision": variant.precision,
        "dtype": variant.dtype,
        **measured,
        "linear_bytes": held,
        "linear_of_bf16": held / plain,
    }


def _environment() -> dict[str, str]:
    """vLLM in one process on all cores, with the ternary plugin."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(report.cores()),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_PLUGINS": "trivium_experts",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def vllm_version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    sys.exit("vLLM is not installed: run `make install`")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here, the picture beside it")
    parser.add_argument("--size", choices=sorted(DECODE), default="1b", help="the model's size")
    options = parser.parse_args(arguments)
    run(options.size, options.json)


if __name__ == "__main__":
    main()
