"""Clients that cannot stand in this environment: installed once, beside it, in the cache folder.

LangChain and LlamaIndex want an older `openai` than vLLM brings; the JavaScript client wants Node.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from tests.packages import need

PYTHON_CLIENTS = ("langchain-openai==1.7.3", "llama-index-llms-openai-like==0.8.1")
NODE_CLIENTS = ("openai@7.57.0",)


def python_with_clients() -> Path:
    """A Python that has PYTHON_CLIENTS."""
    return _once(PYTHON_CLIENTS, _make_venv) / "bin" / "python"


def node_modules() -> Path:
    """A folder whose `node_modules` has NODE_CLIENTS."""
    need("nodejs", "/usr/bin/node")
    need("npm", "/usr/bin/npm")
    return _once(NODE_CLIENTS, _npm_install)


def _once(packages: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled, now or in an earlier run; never a half of one."""
    digest = hashlib.sha256(" ".join((*packages, sys.version)).encode()).hexdigest()[:12]
    folder = Path(platformdirs.user_cache_dir("trivium")) / "test-clients" / digest
    done = folder / ".complete"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        done.touch()
    return folder


def _make_venv(folder: Path) -> None:
    _run(sys.executable, "-m", "venv", str(folder))
    pip = str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"
    _run(*pip, *PYTHON_CLIENTS)


def _npm_install(folder: Path) -> None:
    _run("npm", "install", "--silent", "--no-audit", "--prefix", str(folder), *NODE_CLIENTS)


def _run(*command: str) -> None:
    # Without our path: what is installed here must not be found there.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if ran.returncode:
        pytest.fail(f"{' '.join(command)} failed: {(ran.stderr or ran.stdout).strip()[-500:]}")
