"""Make `.venv` and install Trivium with the vLLM that fits this machine. Standard library only.

`--dev` adds what tests and checks need. A second run with nothing to do costs nothing. `ENGINE=cpu`
in the environment takes vLLM for the CPU although there is a GPU.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
NEEDED_BYTES = {"cpu": 5_000_000_000, "gpu": 15_000_000_000}
OLDEST_DRIVER, OLDEST_GPU = 580, 7.5
"""Driver and compute capability that CUDA 13 takes."""
# Text serving needs none of these; where they were built for another torch they break transformers.
OPTIONAL = ("torchvision", "torchaudio", "torchcodec")


class InstallError(Exception):
    """The installation cannot go on; the message says why and what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    dev = parser.parse_args().dev
    engine = os.environ.get("ENGINE") or ("gpu" if shutil.which("nvidia-smi") else "cpu")
    try:
        install(engine, dev)
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run the command again to go on", file=sys.stderr)
        return 130
    return 0


def install(engine: str, dev: bool) -> None:
    check_machine(engine)
    extras = f"{engine},dev" if dev else engine
    if not PYTHON.exists():
        step("making .venv", [sys.executable, "-m", "venv", str(VENV)])
    what = f"installing Trivium with vLLM for the {engine.upper()} (a few minutes the first time)"
    if not pip_install(what, f"{ROOT}[{extras}]"):
        install_with_uv(what, f"{ROOT}[{extras}]")
    remove_misfits()
    (VENV / ".installed").touch()
    if dev:
        (VENV / ".installed-dev").touch()  # after the other, which it depends on


def check_machine(engine: str) -> None:
    if engine not in NEEDED_BYTES:
        raise InstallError(f"ENGINE is {engine!r}; it may be cpu or gpu")
    if sys.version_info < (3, 11):  # noqa: UP036 (this file may be run by any Python)
        found = sys.version.split()[0]
        raise InstallError(f"Python 3.11 or newer is needed, this is {found}; set PYTHON=…")
    free = shutil.disk_usage(ROOT).free
    if not VENV.exists() and free < NEEDED_BYTES[engine]:
        raise InstallError(
            f"{ROOT} has {free / 1e9:.1f} GB free, the installation needs"
            f" {NEEDED_BYTES[engine] / 1e9:.0f} GB; free some space and try again"
        )
    if engine == "gpu":
        check_gpu()


def check_gpu() -> None:
    """What vLLM for CUDA needs when it starts: Triton compiles, with Python's headers."""
    anyway = "or set ENGINE=cpu to compute without the GPU"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        raise InstallError(
            "Python's headers are missing, which vLLM needs on a GPU; install them (Debian and"
            f" Ubuntu: apt install python3-dev), {anyway}"
        )
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        raise InstallError(
            "a C compiler is missing, which vLLM needs on a GPU; install one (Debian and Ubuntu:"
            f" apt install gcc), {anyway}"
        )
    query = ["nvidia-smi", "--query-gpu=driver_version,compute_cap", "--format=csv,noheader"]
    told = subprocess.run(query, capture_output=True, text=True, check=False)
    found = re.match(r"(\d+)[\d.]*, *(\d+\.\d+)", told.stdout)
    if found is None:
        return  # vLLM will say what it misses
    driver, capability = int(found[1]), float(found[2])
    if driver < OLDEST_DRIVER:
        raise InstallError(
            f"the NVIDIA driver is version {driver}, and vLLM's CUDA 13 needs {OLDEST_DRIVER} or"
            f" newer; update it, {anyway}"
        )
    if capability < OLDEST_GPU:
        raise InstallError(
            f"the GPU's compute capability is {capability}, and CUDA 13 needs {OLDEST_GPU} or more;"
            " set ENGINE=cpu to compute without it"
        )


def pip_install(what: str, target: str) -> bool:
    """False where pip's package indexes have no torch for the CPU."""
    try:
        step(what, [str(PYTHON), "-m", "pip", "install", "--quiet", "--editable", target])
    except InstallError as error:
        if "torch==" in str(error):
            return False
        raise
    return True


def install_with_uv(what: str, target: str) -> None:
    """uv knows by itself where torch's CPU builds are published."""
    print("pip's package indexes have no CPU build of torch; installing with uv, which finds it")
    step("installing uv", [str(PYTHON), "-m", "pip", "install", "--quiet", "uv"])
    uv = [str(PYTHON), "-m", "uv", "pip", "install", "--quiet", "--python", str(PYTHON)]
    step(what, [*uv, "--torch-backend", "auto", "--editable", target])


def remove_misfits() -> None:
    """Uninstall the optional packages if they do not fit the installed torch."""
    fits = subprocess.run([str(PYTHON), "-c", "import torchvision"], capture_output=True)
    if fits.returncode:
        command = [str(PYTHON), "-m", "pip", "uninstall", "--quiet", "--yes", *OPTIONAL]
        subprocess.run(command, capture_output=True, check=False)


def step(what: str, command: list[str]) -> None:
    """Run a command, showing what it is for and how long it takes. Raises InstallError."""
    start = time.monotonic()
    print(f"{what} …", flush=True)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as job:
        assert job.stdout is not None
        lines = []
        for line in job.stdout:
            lines.append(line.rstrip())
            if sys.stdout.isatty():
                seconds = time.monotonic() - start
                print(f"\r\033[K  {seconds:4.0f} s  {line.rstrip()[:90]}", end="", flush=True)
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    if job.returncode:
        reason = [line for line in lines if "ERROR" in line or "error" in line.lower()] or lines
        raise InstallError(f"{what} failed: {' / '.join(reason[-3:]) or 'no reason was given'}")
    print(f"{what}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
