"""Debian packages that tests need beyond Python's: installed when they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def need(package: str, file: str) -> None:
    """Make sure that `file` of the Debian `package` is there; the test fails where it cannot."""
    if Path(file).exists():
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.fail(f"this test needs {file}; install it (Debian: apt-get install {package})")
    install = ["apt-get", "install", "--yes", "--quiet", package]
    ran = subprocess.run(install, capture_output=True, text=True, check=False)
    if ran.returncode:  # lists of packages that are out of date, or none yet
        subprocess.run(["apt-get", "update", "--quiet"], capture_output=True, check=False)
        ran = subprocess.run(install, capture_output=True, text=True, check=False)
    if not Path(file).exists():
        pytest.fail(f"apt-get install {package} failed: {ran.stderr.strip()[-300:]}")
