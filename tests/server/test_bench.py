"""`trivium bench`: which program it runs, with what, and where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.commands.bench import CHECKOUT, bench
from server.commands.client import CommandError

PROGRAM = """
import json, os, sys
json.dump([os.getcwd(), sys.argv[1:]], open("ran.json", "w"))
sys.exit(3)
"""


def test_options_and_status_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout, caller = tmp_path / "checkout", tmp_path / "caller"
    caller.mkdir()
    (checkout / "tests" / "benchmarks").mkdir(parents=True)
    (checkout / "tests" / "__init__.py").touch()
    (checkout / "tests" / "benchmarks" / "some.py").write_text(PROGRAM)
    monkeypatch.chdir(caller)
    options = {
        "json": Path("out.json"),
        "device": "cpu",
        "ggml": None,
        "rounds": 3,
        "against": ["a=1", "b=2"],
    }
    assert bench("some", options, checkout) == 3
    folder, arguments = json.loads((checkout / "ran.json").read_text())
    assert folder == str(checkout)
    json_and_device = ["--json", str(caller / "out.json"), "--device", "cpu"]
    assert arguments == [*json_and_device, "--rounds", "3", "--against", "a=1", "--against", "b=2"]


def test_without_the_source_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="installed without its source; clone"):
        bench("kernel", {}, tmp_path)


def test_the_benchmarks_are_in_the_checkout() -> None:
    for name in ("kernel", "ternary", "bank", "relay"):
        assert (CHECKOUT / "tests" / "benchmarks" / f"{name}.py").is_file()
