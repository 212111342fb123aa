"""The orchestrator runs where torch and vLLM are not installed."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import server

HEAVY = ("torch", "vllm", "transformers")


def test_no_module_of_the_server_imports_torch_or_vllm() -> None:
    names = [m.name for m in pkgutil.walk_packages(server.__path__, "server.")]
    assert "server.relay.dispatch" in names
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"
