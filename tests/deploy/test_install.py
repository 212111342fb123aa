"""What the installation looks at before it begins."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def install() -> Any:
    """deploy/install.py, which is a script."""
    spec = spec_from_file_location("install", ROOT / "deploy" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine(
    folder: Path,
    patch: pytest.MonkeyPatch,
    said: str,
    *,
    headers: bool = True,
    compiler: bool = True,
) -> None:
    """A machine whose nvidia-smi says `said`."""
    for name, there in (("nvidia-smi", True), ("gcc", compiler)):
        if there:
            (folder / name).write_text(f"#!/bin/sh\necho '{said}'\n")
            (folder / name).chmod(0o755)
    if headers:
        (folder / "Python.h").touch()
    patch.setenv("PATH", str(folder))
    patch.setattr("sysconfig.get_paths", lambda: {"include": str(folder)})


def test_a_gpu_that_vllm_takes(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, monkeypatch, "580.65.06, 9.0")
    install.check_gpu()
    machine(tmp_path, monkeypatch, "NVIDIA-SMI has failed")
    install.check_gpu()


@pytest.mark.parametrize(
    ("said", "missing", "reason"),
    [
        ("535.104.05, 8.0", {}, "the NVIDIA driver is version 535"),
        ("590.1, 7.0", {}, "compute capability is 7.0"),
        ("590.1, 9.0", {"headers": False}, "apt install python3-dev"),
        ("590.1, 9.0", {"compiler": False}, "apt install gcc"),
    ],
)
def test_what_vllm_would_miss_is_said_before(
    install: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    missing: dict[str, bool],
    reason: str,
) -> None:
    machine(tmp_path, monkeypatch, said, **missing)
    with pytest.raises(install.InstallError, match=reason) as error:
        install.check_machine("gpu")
    assert "ENGINE=cpu" in str(error.value)


def test_an_engine_that_does_not_exist(install: Any) -> None:
    with pytest.raises(install.InstallError, match="it may be cpu or gpu"):
        install.check_machine("tpu")
